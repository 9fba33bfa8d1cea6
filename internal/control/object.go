package control

import (
	"fmt"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// object is what a device is made of.
type object struct {
	name  string     // path of the file; empty for tables
	table string     // text of the tables; empty for a file
	files []*os.File // the file, or the files and disks of the tables
	key   *transfer.Secret
}

// close closes the files, but not the key.
func (o *object) close() {
	for _, f := range o.files {
		_ = f.Close()
	}
}

// add makes a device of the object.
func (o *object) add(devices Devices, cfg *loop.Config) (loop.Status, error) {
	if o.table != "" {
		return devices.AddTable(o.files, *cfg)
	}
	return devices.Add(o.files[0], *cfg)
}

// object returns what a request wants a device of. It opens what the client has sent no
// descriptor for.
func (s *Server) object(r *http.Request, req *client.AddRequest) (*object, error) {
	files, keyFile, err := descriptors(r, req)
	if err != nil {
		return nil, err
	}
	if keyFile != nil {
		defer func() { _ = keyFile.Close() }()
	}
	s.useOwnMounts(files, req.Config.ReadOnly)
	o := &object{name: req.File, files: files}
	err = checkRandomKeys(req, keyFile != nil)
	switch {
	case err != nil:
	case req.Table != "":
		err = s.openTable(o, req)
	case len(files) == 0:
		err = s.openFile(o)
	}
	if err == nil && keyFile != nil {
		o.key, err = readKey(keyFile, o.maxKey())
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// openFile opens the file of an object, which may wait for its file system without end. An upgrade would wait for the thread, with
// all devices. Inside the gate, the upgrade is refused.
func (s *Server) openFile(o *object) error {
	s.changing.enter()
	defer s.changing.leave()
	file, err := s.Open(o.name)
	if err == nil {
		o.files = []*os.File{file}
	}
	return err
}

// openTable checks the text of tables, and opens their files and disks unless the client has, as openFile does.
func (s *Server) openTable(o *object, req *client.AddRequest) error {
	tables, err := loop.ParseKeylessTable([]byte(req.Table))
	if err != nil {
		return err
	}
	defer tables.Close()
	o.table = tables.Text()
	devices := tables.Devices()
	if len(o.files) > 0 && len(o.files) != len(devices) {
		return fmt.Errorf("%d descriptors for %d devices of the tables: %w", len(o.files), len(devices), unix.EINVAL)
	}
	s.changing.enter()
	defer s.changing.leave()
	for i := len(o.files); i < len(devices); i++ {
		file, err := s.OpenTableDevice(devices[i])
		if err != nil {
			return tables.InDevice(i, err)
		}
		o.files = append(o.files, file)
	}
	if req.RandomKeys {
		o.key, err = makeKeys(tables)
	}
	return err
}

// maxKey returns the maximum length of the key, or of the keys of all lines.
func (o *object) maxKey() int {
	if o.table != "" {
		return loop.MaxTableKeyBytes
	}
	return transfer.MaxKeyBytes
}
