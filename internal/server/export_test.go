package server

// CloseBackend ends the persistence under a running server, as a disk that goes away does.
func CloseBackend(s *Server) error { return s.backend.Close() }
