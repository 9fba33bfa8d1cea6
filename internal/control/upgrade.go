package control

import (
	"encoding/json"
	"net/http"
	"time"
)

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, s.Status())
}

func (s *Server) upgrade(w http.ResponseWriter, _ *http.Request) {
	if err := s.CanUpgrade(); err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	// The answer first: there may be nobody to give it later. Its end, by that
	// of the connection, tells the client that this program is no more.
	if reply(w, http.StatusAccepted, s.Status()) != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	err := s.Upgrade()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
	_ = json.NewEncoder(w).Encode(s.errorReply(err))
}

// Freeze waits until nobody changes devices, and lets nobody, until Thaw. It
// returns an error that wraps EBUSY where that takes longer than patience: a
// disk that hangs may hold up one device for ever, and must not hold up others.
func (s *Server) Freeze(patience time.Duration) error { return s.changing.close(patience) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.changing.open() }
