package store

// Seal makes the present state the oldest one that Rewind can return to.
func (s *Store) Seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = nil
}
