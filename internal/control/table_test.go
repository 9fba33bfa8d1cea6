package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop"
)

// The client opens the files of a table and reads the keys, and the server gets them as
// descriptors, in the order of the text. Each device keeps its path.
func TestClientTable(t *testing.T) {
	s := newStand(t)
	var files client.Files
	paths := []string{file(t, "first"), file(t, "second"), file(t, "third")}
	for _, path := range paths {
		f, err := loop.OpenPath(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		files.Table = append(files.Table, f)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	keys := strings.Repeat("keys", 250) // longer than any single key
	var err error
	if files.Key, err = os.Open(file(t, keys)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Key.Close() }()
	text := "0 8 linear a 0\n8 8 linear b<>&\"\\ 0\n16 8 linear c 0"
	lease, err := client.New(s.socket).Add(context.Background(), client.AddRequest{Table: text}, files)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	d := s.devices
	if want := text + "\n"; d.content != "firstsecondthird" || d.key != keys || lease.Device.Table != want || d.configs[0].Table != want {
		t.Errorf("content %q, key %q, device %+v", d.content, d.key, lease.Device)
	}
	for i, f := range lease.Device.Files {
		if f.File != paths[i] {
			t.Errorf("file %d is %s, not %s", i, f.File, paths[i])
		}
	}
}

// A client can send the longest text that a table may have.
func TestClientLongTable(t *testing.T) {
	s := newStand(t)
	long := "#" + strings.Repeat("<", 1<<20-10) + "\n0 8 zero"
	lease, err := client.New(s.socket).Add(context.Background(), client.AddRequest{Table: long}, client.Files{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Close()
}

// A request for tables is refused if it contradicts itself, or the tables are wrong.
func TestTableRequests(t *testing.T) {
	s := newStand(t)
	path := file(t, "content")
	linear := fmt.Sprintf("0 8 linear %s 0", path)
	for _, tt := range []struct {
		body   string
		status int
		answer string // a part of it
	}{
		{fmt.Sprintf(`{"table":%q,"config":{"read_only":true}}`, linear), 201, `"table":"` + linear},
		{`{"table":"0 8 zero"}`, 201, ""},
		{fmt.Sprintf(`{"table":%q,"file":%q}`, linear, path), 400, "invalid"},
		{fmt.Sprintf(`{"file":%q,"files":[{"file":%q}]}`, path, path), 400, "invalid"},
		{fmt.Sprintf(`{"table":%q,"files":[{"file":%q}]}`, linear, path), 400, "invalid"},
		{fmt.Sprintf(`{"table":%q,"files":[{"flie":""}]}`, linear), 400, "flie"},
		{fmt.Sprintf(`{"table":%q,"descriptors":["file"]}`, linear), 400, "0 came"},
		{`{"table":"0 8 linear /nonexistent 0"}`, 400, `line 1: linear: device \"/nonexistent\"`},
		{`{"table":"0 8"}`, 400, "line 1: "},
		{`{"table":"0 8 thin /x 0"}`, 400, "line 1: thin: "},
		{fmt.Sprintf(`{"table":"0 8 crypt aes-xts-plain64 %s 0 /x 0"}`, strings.Repeat("01", 32)), 400, "line 1: crypt: key: key in the text"},
		{fmt.Sprintf(`{"table":"#%s"}`, strings.Repeat(" ", 1<<20)), 400, "limit exceeded"},
	} {
		status, answer := s.send(t, post(tt.body))
		if status != tt.status || !strings.Contains(answer, tt.answer) {
			t.Errorf("%.100s: %d %s, want %d with %q", tt.body, status, answer, tt.status, tt.answer)
		}
	}
	if n := len(s.devices.configs); n != 2 || !s.devices.configs[0].ReadOnly || s.devices.configs[0].OnCrash != loop.CrashReissue {
		t.Errorf("made %d devices with %+v", n, s.devices.configs)
	}
}

// A request to fork can have its stores as descriptors. Others are refused and closed.
func TestForkDescriptors(t *testing.T) {
	for kinds, files := range map[string]int{"file": 1, "file,directory": 1, "file,file": 2, "file,directory,file,directory": 2} {
		if !announcesStores(strings.Split(kinds, ","), files) {
			t.Errorf("%s is refused for %d stores", kinds, files)
		}
	}
	for kinds, files := range map[string]int{"": 1, "directory,file": 1, "file,directory,directory": 1, "file,key": 1, "file": 2, "file,file,directory": 1} {
		if announcesStores(strings.Split(kinds, ","), files) {
			t.Errorf("%s is taken for %d stores", kinds, files)
		}
	}
	for _, path := range []string{"/new", "new"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		stores, err := sentStores([]string{path}, "file,directory", []int{dup(t, w)})
		if err == nil || len(stores) != 0 {
			t.Errorf("%s: %d stores, error %v", path, len(stores), err)
		}
		_ = w.Close()
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: the descriptor is open: %d, %v", path, n, err)
		}
		_ = r.Close()
	}
	directory, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	fds := []int{dup(t, directory), dup(t, directory), dup(t, directory)}
	stores, err := sentStores([]string{"/a/new", "/b/other"}, "file,directory,file", fds)
	if err != nil || len(stores) != 2 {
		t.Fatalf("%d stores, error %v", len(stores), err)
	}
	defer closeStores(stores)
	if stores[0].File.Name() != "/a/new" || stores[0].Directory == nil || stores[1].File.Name() != "/b/other" || stores[1].Directory != nil {
		t.Errorf("%+v", stores)
	}
}

// The second device of a fork has the files of the first one, and the server refuses another file
// that has the name of one of these.
func TestForkOther(t *testing.T) {
	s := newStand(t)
	base, store, other := file(t, "base"), file(t, "store"), file(t, "other")
	object, err := identity.Of(open(t, base))
	if err != nil {
		t.Fatal(err)
	}
	s.devices.put(0, loop.Status{Files: []loop.StatusFile{{File: base, Device: object.Device, Inode: object.Inode}}})
	fork := request("POST", fmt.Sprintf("/v1/devices/0/fork?store=%s&other=%s", store, other))
	if status, answer := s.send(t, fork); status != 201 || s.devices.content != "baseother" {
		t.Fatalf("%d %s, content %q", status, answer, s.devices.content)
	}
	if err := errors.Join(os.Rename(base, base+".moved"), os.WriteFile(base, []byte("another"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if status, answer := s.send(t, fork); status != 500 || !strings.Contains(answer, base+" is another file") || len(s.devices.configs) != 1 {
		t.Errorf("%d %s, devices %+v", status, answer, s.devices.configs)
	}
}

// An encrypted device does not fork if a second device is asked for, which would need the key.
func TestForkOtherEncrypted(t *testing.T) {
	s := newStand(t)
	s.devices.put(0, loop.Status{Table: "0 8 crypt aes-xts-plain64 :64:user:ublk-loop 0 /a 0"})
	fork := request("POST", fmt.Sprintf("/v1/devices/0/fork?store=%s&other=%s", file(t, "store"), file(t, "other")))
	if status, answer := s.send(t, fork); status == 201 || !strings.Contains(answer, "a second device needs the key") || s.devices.content != "" {
		t.Errorf("%d %s, content %q", status, answer, s.devices.content)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
