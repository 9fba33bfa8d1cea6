package control

import (
	"fmt"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// matches returns the function that tells the tables for which a tag of client.Device.TableTag stands, or nil without one.
func matches(tag string) func(table string) bool {
	if tag == "" {
		return nil
	}
	return func(table string) bool { return (&client.Device{Table: table}).TableTag() == tag }
}

// reload gives a device other tables that show the same data.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	var req client.AddRequest
	if status, err := decode(w, r, &req); err != nil {
		s.fail(w, status, err)
		return
	}
	o, err := s.object(r, &req)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	defer o.close()
	if o.table == "" || o.key != nil || req.Lease || req.Config != (client.Config{}) {
		if o.key != nil {
			o.key.Close()
		}
		s.fail(w, http.StatusBadRequest, fmt.Errorf("reload takes only tables and their files: %w", unix.EINVAL))
		return
	}
	s.changing.enter()
	defer s.changing.leave()
	made, err := s.Devices.Reload(id, sequence, &loop.Reloading{Table: o.table, Files: o.files, Replaces: matches(r.Header.Get("If-Match"))})
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	_ = reply(w, http.StatusOK, wire.Device(&made))
}
