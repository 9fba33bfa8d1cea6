package control

import (
	"net/http"

	"github.com/ublk-loop/ublk-loop/client"
)

// merge moves the changes of a device's store into its base. It ends with the connection. An
// upgrade does not wait for it: another merge continues.
func (s *Server) merge(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	var merged client.Merged
	if err == nil {
		merged.Chunks, err = s.Devices.Merge(r.Context(), id, sequence)
	}
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	_ = reply(w, http.StatusOK, merged)
}
