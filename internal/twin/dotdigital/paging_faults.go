package dotdigital

import "encoding/json"

// pageArgs refine the paging faults: mode "row" repeats or leaves out one row,
// "loop" hands out the marker of the current page again. For page-drift the
// modes are "touch" (default: the modification time of one contact moves) and
// "delete" (one contact goes to the recycle bin); for reorder they are "reverse"
// (default) and "duplicate", which answers every event of a page twice.
type pageArgs struct {
	Mode      string `json:"mode"`
	ContactID int64  `json:"contactId"`
}

func (s *Server) takePage(kind, operation string) (pageArgs, bool) {
	hit, ok := s.faults.Take(twinName, kind, operation)
	var args pageArgs
	if ok && len(hit.Args) > 0 {
		_ = json.Unmarshal(hit.Args, &args)
	}
	return args, ok
}

// pageKind says how the page after the first is falsified: "dup", "skip",
// "loop" or not at all.
func (s *Server) pageKind(c *call) string {
	if args, ok := s.takePage("page-dup", c.route.operation); ok {
		if args.Mode == "loop" {
			return "loop"
		}
		return "dup"
	}
	if _, ok := s.takePage("page-skip", c.route.operation); ok {
		return "skip"
	}
	return ""
}

// pageFault shifts a v2 page by one row.
func (s *Server) pageFault(c *call, skip, limit int) (int, int) {
	if skip > 0 {
		switch s.pageKind(c) {
		case "dup":
			skip--
		case "skip":
			skip++
		case "loop":
			skip = max(0, skip-limit)
		}
	}
	return skip, limit
}

// drift changes one contact while a client pages. The caller holds no lock.
func (s *Server) drift(c *call) {
	args, ok := s.takePage("page-drift", c.route.operation)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.byID(args.ContactID)
	if !found {
		if s.alive.n == 0 {
			return
		}
		start := uint32(s.rng.Uint64N(uint64(s.count)))
		if i, found = s.alive.next(start); !found {
			i, _ = s.alive.next(0)
		}
	}
	w := &writer{s: s, now: s.now(), source: "fault", operation: "fault.page-drift"}
	if args.Mode == "delete" && s.at(i).life == live {
		w.bin(i)
		return
	}
	w.touch(i)
	w.record("update", i, 0)
}
