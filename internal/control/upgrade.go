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
	// The answer must be sent first, because this program may not exist later. The end of
	// the connection tells the client that this program has ended.
	if reply(w, http.StatusAccepted, s.Status()) != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	err := s.Upgrade()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
	_ = json.NewEncoder(w).Encode(s.errorReply(err))
}

// Freeze waits until no request changes devices, and then blocks such requests until
// Thaw. It returns an error that wraps EBUSY if that takes longer than patience. A
// hanging disk may block the request for one device for ever, and must not block other
// devices.
func (s *Server) Freeze(patience time.Duration) error { return s.changing.close(patience) }

// Thaw undoes Freeze.
func (s *Server) Thaw() { s.changing.open() }
