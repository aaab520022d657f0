package dotdigital

type campaign struct{}
type send struct{}

func (s *Server) settleSends(now int64) {}
func campaignRoutes() []route           { return nil }
