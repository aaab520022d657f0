package dataverse

// Seal ends the set-up of an organization: Restore and the fault env-restore
// take back what was written after it, never the organization itself.
func (s *Server) Seal() { s.store.Seal() }
