package control

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// matches returns the function that tells the tables for which the lines of a header If-Match (RFC 9110, section 13.1.1) stand, or
// nil if they stand for all. A table's tag is client.Device.TableTag.
func matches(lines []string) func(table string) bool {
	header := strings.Join(lines, ",")
	if lines == nil || strings.Trim(header, listSpace) == "*" {
		return nil
	}
	return func(table string) bool { return hasTag(header, (&client.Device{Table: table}).TableTag()) }
}

const listSpace = " \t"

// hasTag reports whether a list of entity tags has a tag. A weak tag is none of a table, and neither is what follows an error of
// the list.
func hasTag(list, tag string) bool {
	for {
		list = strings.TrimLeft(list, listSpace+",")
		opaque, isWeak := strings.CutPrefix(list, "W/")
		if !strings.HasPrefix(opaque, `"`) {
			return false
		}
		length := strings.IndexByte(opaque[1:], '"') + 2
		if length < 2 {
			return false
		}
		if !isWeak && opaque[:length] == tag {
			return true
		}
		list = strings.TrimLeft(opaque[length:], listSpace)
		if !strings.HasPrefix(list, ",") {
			return false
		}
	}
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
	replaces := matches(r.Header.Values("If-Match"))
	s.changing.enter()
	defer s.changing.leave()
	made, err := s.Devices.Reload(id, sequence, &loop.Reloading{Table: o.table, Files: o.files, Replaces: replaces})
	switch {
	case err == nil:
		_ = reply(w, http.StatusOK, wire.Device(&made))
	case replaces != nil && errors.Is(err, unix.ESTALE):
		s.fail(w, http.StatusPreconditionFailed, err)
	default:
		s.fail(w, statusOf(err), err)
	}
}
