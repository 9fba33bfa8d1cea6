package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// fakeDevices keeps devices in a list only.
type fakeDevices struct {
	mu         sync.Mutex
	devices    map[uint32]loop.Status
	configs    []loop.Config
	content    string // content of the last device's files
	key        string // key of the last device
	addErr     error
	gone       int           // number of removed devices
	adding     chan struct{} // if not nil, Add waits until it can receive from it
	released   chan uint32
	refused    chan uint32 // releases of devices that are gone
	stats      []loop.DeviceStats
	upgradeErr error // the reason to refuse an upgrade
}

// put sets the status of a device.
func (d *fakeDevices) put(id uint32, s loop.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.devices[id] = s
}

func (d *fakeDevices) Add(file *os.File, cfg loop.Config) (loop.Status, error) {
	return d.add([]*os.File{file}, cfg)
}

func (d *fakeDevices) AddTable(files []*os.File, cfg loop.Config) (loop.Status, error) {
	return d.add(files, cfg)
}

func (d *fakeDevices) add(files []*os.File, cfg loop.Config) (loop.Status, error) {
	if d.adding != nil {
		<-d.adding
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if cfg.Key != nil {
		d.key = string(cfg.Key.Bytes())
		cfg.Key.Close()
	}
	if d.addErr != nil {
		return loop.Status{}, d.addErr
	}
	s := loop.Status{ID: uint32(len(d.devices)), Autoclear: cfg.Autoclear, DiskSequence: uint64(len(d.configs) + 1)}
	d.content = ""
	for _, file := range files {
		content, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
		if err != nil {
			return loop.Status{}, err
		}
		d.content += string(content)
		s.Files = append(s.Files, loop.StatusFile{File: file.Name()})
	}
	if s.Table = cfg.Table; s.Table == "" {
		s.File, s.Files = files[0].Name(), nil
	}
	d.devices[s.ID] = s
	d.configs = append(d.configs, cfg)
	return s, nil
}

// fail makes all further calls of Add fail.
func (d *fakeDevices) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addErr = err
}

func (d *fakeDevices) refuseUpgrade(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.upgradeErr = err
}

func (d *fakeDevices) canUpgrade() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.upgradeErr
}

func (d *fakeDevices) Keep(id uint32, sequence *uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, sequence) {
		return unix.ENODEV
	}
	s := d.devices[id]
	s.Autoclear = false
	d.devices[id] = s
	return nil
}

func (d *fakeDevices) Clear(id uint32, sequence *uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, sequence) {
		return unix.ENODEV
	}
	s := d.devices[id]
	s.Autoclear = true
	d.devices[id] = s
	return nil
}

// has reports whether there is a device. The caller holds the mutex.
func (d *fakeDevices) has(id uint32, sequence *uint64) bool {
	s, found := d.devices[id]
	return found && (sequence == nil || *sequence == s.DiskSequence)
}

// replace gives the number of a device to another, and returns it.
func (d *fakeDevices) replace(id uint32) loop.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := loop.Status{ID: id, DiskSequence: d.devices[id].DiskSequence + 100, Autoclear: true}
	d.devices[id] = s
	return s
}

func (d *fakeDevices) Release(id uint32, sequence *uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.has(id, sequence) {
		d.released <- id
	} else {
		d.refused <- id
	}
}

func (d *fakeDevices) Remove(id uint32, opts loop.DetachOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, opts.DiskSequence) {
		return unix.ENODEV
	}
	if !opts.Force {
		return loop.ErrInUse
	}
	delete(d.devices, id)
	d.gone++
	return nil
}

// Fork implements Devices. The first file of the device is below its store.
func (d *fakeDevices) Fork(id uint32, sequence *uint64, store *os.File, _ ...*loop.NewFile) (loop.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, sequence) {
		return loop.Status{}, unix.ENODEV
	}
	base := d.devices[id].Files[0]
	return loop.Status{ID: id, Table: "0 8 snapshot " + base.File + " " + store.Name() + " P 8", Files: []loop.StatusFile{base, {}}}, nil
}

// Reload implements Devices.
func (d *fakeDevices) Reload(id uint32, sequence *uint64, r *loop.Reloading) (loop.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, sequence) {
		return loop.Status{}, unix.ENODEV
	}
	if r.Replaces != nil && !r.Replaces(d.devices[id].Table) {
		return loop.Status{}, unix.ESTALE
	}
	s := loop.Status{ID: id, Table: r.Table}
	for _, f := range r.Files {
		s.Files = append(s.Files, loop.StatusFile{File: f.Name()})
	}
	return s, nil
}

func (d *fakeDevices) Resize(id uint32, opts loop.ResizeOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.has(id, opts.DiskSequence):
		return unix.ENODEV
	case opts.Size == unsupportedSize:
		return ublk.ErrNotSupported
	}
	s := d.devices[id]
	s.Size = opts.Size
	d.devices[id] = s
	return nil
}

func (d *fakeDevices) Merge(_ context.Context, id uint32, sequence *uint64) (uint64, error) {
	if id != 1 || sequence != nil && *sequence == 0 {
		return 0, fmt.Errorf("merge of device %d: %w", id, unix.ENODEV)
	}
	return 17, nil
}

// unsupportedSize makes Resize fail as before Linux 6.16.
const unsupportedSize = 1 << 40

// removed returns the number of devices that were removed since the last call.
func (d *fakeDevices) removed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.gone
	d.gone = 0
	return n
}

func (d *fakeDevices) Device(id uint32) (loop.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id, nil) {
		return loop.Status{}, fmt.Errorf("%s: not a device of this server: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	return d.devices[id], nil
}

func (d *fakeDevices) Devices() []loop.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []loop.Status{}
	for _, s := range d.devices {
		list = append(list, s)
	}
	return list
}

func (d *fakeDevices) Stats() []loop.DeviceStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// stand is a server of fake devices and its socket.
type stand struct {
	devices *fakeDevices
	socket  string
}

func newStand(t *testing.T) *stand { return newStandWith(t, nil, headerTimeout) }

// newStandWith returns a server that waits for adding before it makes a device. patience
// is its limit for a client's header.
func newStandWith(t *testing.T, adding chan struct{}, patience time.Duration) *stand {
	t.Helper()
	s := &stand{
		devices: &fakeDevices{devices: map[uint32]loop.Status{}, adding: adding, released: make(chan uint32, 100), refused: make(chan uint32, 100)},
		socket:  filepath.Join(t.TempDir(), "s"),
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	api := &Server{
		Devices: s.devices, Open: loop.OpenPath, OpenTableDevice: loop.OpenTableDevice, OnCrash: loop.CrashReissue,
		Describe: func(err error, file string, _ *loop.Config) error { return fmt.Errorf("attach %s: %w", file, err) },
		Hint:     func(err error) string { return "about " + err.Error() },
		Status:   func() client.ServerStatus { return client.ServerStatus{Version: "v1"} },
	}
	api.CanUpgrade = s.devices.canUpgrade
	api.Upgrade = func() error { return unix.ENOEXEC }
	h := api.HTTP()
	h.ReadHeaderTimeout, h.IdleTimeout = patience, max(h.IdleTimeout, patience)
	served := make(chan error, 1)
	go func() { served <- Serve(h, l) }()
	t.Cleanup(func() {
		if err := errors.Join(h.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send sends a client's text, and returns the answer when the connection has ended.
func (s *stand) send(t *testing.T, text string) (status int, body string) {
	t.Helper()
	c := s.connect(t)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.100q: %v", text, err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.100q: %v", text, err)
	}
	return resp.StatusCode, string(data)
}

func (s *stand) connect(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func post(body string) string { return postTo("/v1/devices", body) }

func postTo(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func request(method, path string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
}

// file makes a file and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequests(t *testing.T) {
	s := newStand(t)
	path := file(t, "content")
	s.answers(t, []exchange{
		{post(fmt.Sprintf(`{"file":%q,"config":{"read_only":true}}`, path)), 201, `"id":0`},
		{request("GET", "/v1/devices"), 200, `[{"id":0`},
		{request("GET", "/v1/devices/0"), 200, `{"id":0`},
		{request("GET", "/v1/devices/1"), 404, "/dev/ublkb1"},
		{request("GET", "/v1/devices/x"), 400, "not a number"},
		{request("POST", "/v1/devices/0/keep"), 204, ""},
		{request("POST", "/v1/devices/0/clear"), 204, ""},
		{request("POST", "/v1/devices/7/clear"), 404, `"errno":19`},
		{request("POST", "/v1/devices/7/keep"), 404, `"hint":"about`},
		{request("POST", "/v1/devices/0/keep?for=x"), 400, "not a time"},
		{request("POST", "/v1/devices/0/keep?for=-1s"), 400, "not a time"},
		{request("POST", "/v1/devices/0/keep?for=1s"), 404, "it has no lease"},
		{request("POST", "/v1/devices/0/resize?size=8192"), 204, ""},
		{request("GET", "/v1/devices/0"), 200, `"size":8192`},
		{request("POST", "/v1/devices/0/resize"), 204, ""},
		{request("GET", "/v1/devices/0"), 200, `"size":0`},
		{request("POST", "/v1/devices/0/resize?size=0"), 400, "not a number of bytes"},
		{request("POST", "/v1/devices/0/resize?size=x"), 400, "not a number of bytes"},
		{request("POST", "/v1/devices/0/resize?size=4096&diskseq=99"), 404, `"hint":"about`},
		{request("POST", "/v1/devices/0/resize?size=1099511627776"), 501, "not supported"},
		{request("POST", "/v1/devices/1/merge"), 200, `{"chunks":17}`},
		{request("POST", "/v1/devices/2/merge"), 404, `"errno":19`},
		{request("POST", "/v1/devices/x/merge"), 400, "not a number"},
		{postTo("/v1/devices/0/reload", fmt.Sprintf(`{"table":"0 8 linear %s 0"}`, path)), 200, `"table":"0 8 linear ` + path},
		{postTo("/v1/devices/7/reload", `{"table":"0 8 zero"}`), 404, `"errno":19`},
		{postTo("/v1/devices/0/reload", `{"table":"0 8"}`), 400, "wrong syntax"},
		{postTo("/v1/devices/0/reload", fmt.Sprintf(`{"file":%q}`, path)), 400, "only tables"},
		{postTo("/v1/devices/0/reload", `{"table":"0 8 zero","lease":true}`), 400, "only tables"},
		{postTo("/v1/devices/0/reload", `{"table":"0 8 zero","config":{"read_only":true}}`), 400, "only tables"},
		{request("DELETE", "/v1/devices/0"), 409, "in use"},
		{request("DELETE", "/v1/devices/0?force=yes"), 400, `force \"yes\"`},
		{request("DELETE", "/v1/devices/0?force=true&sequence=99"), 400, `\"sequence\": unknown`},
		{request("DELETE", "/v1/devices/0?force=true;diskseq=99"), 400, "parameters"},
		{request("DELETE", "/v1/devices/0?force=true&diskseq=1&diskseq=99"), 400, "there twice"},
		{request("GET", "/v1/stats?id=1"), 400, "unknown"},
		{request("DELETE", "/v1/devices/0?force=true"), 204, ""},
		{request("DELETE", "/v1/devices/0?force=true"), 404, "no such device"},
	})
	if cfg := s.devices.configs[0]; !cfg.ReadOnly || cfg.OnCrash != loop.CrashReissue || s.devices.content != "content" {
		t.Errorf("made with %+v of a file with %q", cfg, s.devices.content)
	}
	if n := len(s.devices.Devices()); n != 0 {
		t.Errorf("%d devices are left", n)
	}
}

// The server refuses a wrong request and makes no device.
func TestWrongRequests(t *testing.T) {
	s := newStand(t)
	s.answers(t, []exchange{
		{request("GET", "/"), 404, `{"error":"GET /: no such path"`},
		{request("GET", "/v1/nothing"), 404, `{"error":"GET /v1/nothing: no such path"`},
		{request("PUT", "/v1/devices"), 405, `{"error":"PUT /v1/devices: the methods are GET, HEAD, POST"`},
		{post(`{"file":"/nonexistent"}`), 400, "/nonexistent"},
		{post(`{"file":"relative"}`), 400, "relative"},
		{post(`{"file":"/x","flie":1}`), 400, `read the request: unknown field \"flie\"`},
		{post(`{"file":"/x","config":{"offset":"1M"}}`), 400, "read the request: config.offset: a string where a whole number from 0 to 18446744073709551615 is expected"},
		{post(``), 400, "read the request: the text is empty"},
		{post(`{"file":"/x","config":{"many_devices":true}}`), 400, "many_devices"},
		{post(`{"file":"/x","config":{"autoclear":true}}`), 400, "autoclear"},
		{post(`{"file":"/x","config":{"offset":-1}}`), 400, "offset"},
		{post(`{"file":"/x"} {"file":"/y"}`), 400, "more than one"},
		{post(`{"file":"/x"`), 400, "the text ends too early"},
		{post(`{"file":"/x","descriptors":["file"]}`), 400, "0 came"},
		{post(strings.Repeat(" ", maxBody+1)), 413, "4194304"},
		{post(fmt.Sprintf(`{"file":%q}`, t.TempDir())), 400, "is a directory"},
		{"GET /v1/devices HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n", 431, ""},
	})
	if n := len(s.devices.configs); n != 0 {
		t.Errorf("%d devices were made", n)
	}
}

// exchange is a request, with the status and a part of the body of its answer.
type exchange struct {
	request string
	status  int
	body    string
}

// answers checks the answers to requests, one after the other.
func (s *stand) answers(t *testing.T, exchanges []exchange) {
	t.Helper()
	for _, e := range exchanges {
		if status, body := s.send(t, e.request); status != e.status || !strings.Contains(body, e.body) {
			t.Errorf("%.80q: %d %s, want %d with %q", e.request, status, body, e.status, e.body)
		}
	}
}

// A request whose body does not come, or is not expected, gets its answer at once, and the connection
// ends. A merge thus notices the end of the connection, because no body is left in it.
func TestBodyThatDoesNotCome(t *testing.T) {
	s := newStand(t)
	s.devices.put(1, loop.Status{ID: 1})
	for _, head := range []string{
		"POST /v1/devices/1/merge", "POST /v1/devices/1/clear", "PUT /v1/devices/1/key", "GET /v1/devices", "POST /v1/upgrade",
	} {
		s.answersAtOnce(t, head+" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "no body")
		s.answersAtOnce(t, head+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "no body")
	}
	for _, path := range []string{"/v1/devices", "/v1/devices/1/reload"} {
		s.answersAtOnce(t, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", "read the request")
	}
}

// answersAtOnce checks that a request is refused, with text, although more of it is announced.
func (s *stand) answersAtOnce(t *testing.T, head, text string) {
	t.Helper()
	c := s.connect(t)
	_ = c.SetReadDeadline(time.Now().Add(bodyTimeout / 2))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Errorf("%q: %v", head, err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 400 || !resp.Close || !strings.Contains(string(body), text) || err != nil {
		t.Errorf("%q: %d %s, error %v, closes %v", head, resp.StatusCode, body, err, resp.Close)
	}
}

// Only an error of the server itself has the status 500.
func TestStatusOf(t *testing.T) {
	for err, want := range map[error]int{
		unix.ENODEV: 404, loop.ErrInUse: 409, unix.EEXIST: 409, unix.EBUSY: 409, ublk.ErrNotRecoverable: 409,
		unix.EINVAL: 400, unix.ENOENT: 400, unix.EISDIR: 400, unix.EKEYREJECTED: 400,
		transfer.ErrKey: 400, transfer.ErrTooLong: 400, errors.ErrUnsupported: 400,
		unix.EIO: 500, unix.EACCES: 500, unix.ETIMEDOUT: 500, ublk.ErrNotSupported: 500,
	} {
		if got := statusOf(fmt.Errorf("fork: %w", err)); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// A key that is longer than any is the client's error.
func TestKeyTooLong(t *testing.T) {
	s := newStand(t)
	f := open(t, file(t, ""))
	key, err := os.Open(file(t, strings.Repeat("k", transfer.MaxKeyBytes+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	_, err = client.New(s.socket).Add(t.Context(), client.AddRequest{File: f.Name()}, client.Files{File: f, Key: key})
	if !client.HasStatus(err, 400) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
}

// A device of a file with other writers does not get the server's default of on_crash,
// because it cannot outlive the server.
func TestOnCrashOfShared(t *testing.T) {
	s := newStand(t)
	path := file(t, "")
	for config, want := range map[string]loop.OnCrash{
		`{}`:                                loop.CrashReissue,
		`{"shared":true}`:                   "",
		`{"shared":true,"read_only":true}`:  loop.CrashReissue,
		`{"shared":true,"on_crash":"fail"}`: loop.CrashFail,
	} {
		if status, body := s.send(t, post(fmt.Sprintf(`{"file":%q,"config":%s}`, path, config))); status != 201 {
			t.Fatalf("%s: status %d %s", config, status, body)
		}
		if got := s.devices.configs[len(s.devices.configs)-1].OnCrash; got != want {
			t.Errorf("%s: on crash %q, want %q", config, got, want)
		}
	}
}

func TestFailedAdd(t *testing.T) {
	s := newStand(t)
	for err, status := range map[error]int{
		unix.EINVAL: 400, unix.EBUSY: 409, unix.EEXIST: 409, unix.ENOMEM: 500, loop.ErrInUse: 409,
	} {
		s.devices.fail(err)
		path := file(t, "")
		got, body := s.send(t, post(fmt.Sprintf(`{"file":%q,"lease":true}`, path)))
		var e client.ErrorReply
		if json.Unmarshal([]byte(body), &e) != nil || got != status || e.Message != "attach "+path+": "+err.Error() {
			t.Errorf("%v: %d %s, want %d", err, got, body, status)
		}
	}
	if len(s.devices.released) != 0 {
		t.Error("a lease ended that there was not")
	}
}

// An upgrade that fails is an error for the client at each stage.
func TestUpgradeFails(t *testing.T) {
	s := newStand(t)
	err := client.New(s.socket).Upgrade(context.Background())
	if !client.HasStatus(err, 500) || err.Error() != unix.ENOEXEC.Error() {
		t.Errorf("after the first answer: %v", err)
	}
	s = newStand(t)
	s.devices.refuseUpgrade(loop.ErrInUse)
	if err := client.New(s.socket).Upgrade(context.Background()); !client.HasStatus(err, 409) {
		t.Errorf("before it: %v", err)
	}
}

// A device is not taken for the next one with its number: neither by a client that removes
// or keeps it, nor by the end of its lease.
func TestDeviceReplaced(t *testing.T) {
	s := newStand(t)
	c := client.New(s.socket)
	f, err := os.Open(file(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lease, err := c.Add(context.Background(), client.AddRequest{File: f.Name()}, client.Files{File: f})
	if err != nil {
		t.Fatal(err)
	}
	other := s.devices.replace(lease.Device.ID)
	if err := c.Remove(context.Background(), &lease.Device, true); !client.HasStatus(err, 404) {
		t.Errorf("remove: %v", err)
	}
	if err := lease.Keep(context.Background(), 0); !client.HasStatus(err, 404) {
		t.Errorf("keep: %v", err)
	}
	lease.Close()
	select {
	case <-s.devices.refused:
	case <-s.devices.released:
		t.Error("the end of the lease releases the other device")
	}
	if status, _ := s.send(t, request("DELETE", "/v1/devices/0?diskseq=x")); status != 400 {
		t.Errorf("a wrong sequence: status %d", status)
	}
	if list := s.devices.Devices(); len(list) != 1 || list[0].DiskSequence != other.DiskSequence || !list[0].Autoclear {
		t.Errorf("devices are %+v", list)
	}
	if status, _ := s.send(t, request("DELETE", fmt.Sprintf("/v1/devices/0?force=true&diskseq=%d", other.DiskSequence))); status != 204 {
		t.Errorf("the other device itself: status %d", status)
	}
}

// A hint names fields of the request. The template lets a program use its own names for
// settings, as the command does.
func TestHintNamesFields(t *testing.T) {
	s := &Server{Hint: func(err error) string { return err.Error() }}
	for template, want := range map[string]client.ErrorReply{
		"attach it with {read_only}":         {Hint: "attach it with read_only", Template: "attach it with {read_only}"},
		"use {direct_io=auto} or off":        {Hint: "use direct_io=auto or off", Template: "use {direct_io=auto} or off"},
		"give it with {key}":                 {Hint: "give it with the descriptor key", Template: "give it with {key}"},
		"{keyfile_size=64} leaves it out":    {Hint: "a key of 64 bytes leaves it out", Template: "{keyfile_size=64} leaves it out"},
		"unmount it; {force} removes it":     {Hint: "unmount it; force=true removes it", Template: "unmount it; {force} removes it"},
		"the disk below may hang, see dmesg": {Hint: "the disk below may hang, see dmesg"},
	} {
		want.Message = template
		if got := s.errorReply(errors.New(template)); got != want {
			t.Errorf("%q: %+v, want %+v", template, got, want)
		}
	}
}

// The client learns the number of an error, also of one that says only that something is not supported.
func TestErrno(t *testing.T) {
	s := &Server{Hint: func(error) string { return "" }}
	for _, err := range []error{unix.EBUSY, fmt.Errorf("fork: %w", errors.ErrUnsupported), errors.Join(errors.ErrUnsupported, unix.EIO)} {
		reply := s.errorReply(err)
		got := error(&client.ServerError{ErrorReply: reply})
		var errno unix.Errno
		if !errors.As(got, &errno) || !errors.Is(err, errno) && !(errors.Is(err, errors.ErrUnsupported) && errors.Is(got, errors.ErrUnsupported)) {
			t.Errorf("%v arrives as %+v", err, reply)
		}
	}
	if reply := s.errorReply(errors.New("no number")); reply.Errno != 0 {
		t.Errorf("an error without a number arrives as %+v", reply)
	}
}

// The client opens the file and reads the key, and the server gets both as descriptors.
// The lease ends with the connection.
func TestClient(t *testing.T) {
	s := newStand(t)
	c := client.New(s.socket)
	path := file(t, "content")
	f, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	key, err := os.Open(file(t, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = key.Close() }()
	lease, err := c.Add(context.Background(), client.AddRequest{File: path}, client.Files{File: f, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	d := s.devices
	if d.content != "content" || d.key != "secret" || !d.configs[0].Autoclear || d.configs[0].OnCrash != "" || lease.Device.File != path {
		t.Errorf("content %q, key %q, config %+v, device %+v", d.content, d.key, d.configs[0], lease.Device)
	}
	select {
	case <-d.released:
		t.Fatal("the lease has ended")
	case <-time.After(50 * time.Millisecond):
	}
	if list, err := c.Devices(context.Background()); err != nil || len(list) != 1 || list[0].File != path {
		t.Errorf("devices are %+v, error %v", list, err)
	}
	if one, err := c.Device(context.Background(), lease.Device.ID); err != nil || one.File != path {
		t.Errorf("the device is %+v, error %v", one, err)
	}
	if err := lease.Keep(context.Background(), 0); err != nil || d.Devices()[0].Autoclear {
		t.Errorf("keep: error %v, %+v", err, d.Devices())
	}
	lease.Close()
	if id := <-d.released; id != lease.Device.ID {
		t.Errorf("lease of device %d has ended, want %d", id, lease.Device.ID)
	}
	<-lease.Ended()
	if err := c.Remove(context.Background(), &lease.Device, true); err != nil {
		t.Error(err)
	}
	var e *client.ServerError
	if err := c.Remove(context.Background(), &lease.Device, true); !errors.As(err, &e) || e.Status != 404 || e.Hint == "" {
		t.Errorf("removed again: error %v", err)
	}
	if _, err := c.Device(context.Background(), 0); !errors.As(err, &e) || e.Status != 404 {
		t.Errorf("a device that was removed: error %v", err)
	}
}

// A device that is kept for a time becomes free after that time, not before.
func TestKeepForATime(t *testing.T) {
	s := newStand(t)
	f, err := loop.OpenPath(file(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lease, err := client.New(s.socket).Add(context.Background(), client.AddRequest{File: f.Name()}, client.Files{File: f})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := lease.Keep(context.Background(), 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	lease.Close()
	<-s.devices.released
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("released after %v", d)
	}
	select {
	case <-s.devices.released:
		t.Error("released twice")
	case <-time.After(50 * time.Millisecond):
	}
}

// A lease ends with its connection even if the client has sent more data after its
// request.
func TestLeaseAndMore(t *testing.T) {
	s := newStand(t)
	c := s.connect(t)
	if _, err := io.WriteString(c, post(fmt.Sprintf(`{"file":%q,"lease":true}`, file(t, "")))+"\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 201 {
		t.Fatalf("%+v, error %v", resp, err)
	}
	if _, err := io.WriteString(c, "more"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-s.devices.released:
	case <-time.After(30 * time.Second):
		t.Error("the device is not released")
	}
}

// A device stays while its lease has a connection, and until the latest time that keep
// asked for.
func TestLeaseForATime(t *testing.T) {
	soon, later := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	var l leases
	of := device{1, 7}
	tie := l.begin(of, &net.UnixConn{}, time.Time{})
	l.extend(of, soon)
	if l.expire(tie) {
		t.Error("over with its holder there")
	}
	if !l.end(tie) {
		t.Error("not over when the holder goes after that time")
	}
	tie = l.begin(of, &net.UnixConn{}, time.Time{})
	if l.extend(device{1, 8}, later) != nil {
		t.Error("the lease is extended for another device")
	}
	l.extend(of, later)
	l.extend(of, soon)
	if l.end(tie) || l.expire(tie) {
		t.Error("over before the later time")
	}
}

// A lease has one timer, however often a client extends it.
func TestLeaseHasOneTimer(t *testing.T) {
	const extensions = 100000
	s := &Server{Devices: &fakeDevices{}}
	of := device{1, 7}
	tie := s.leases.begin(of, &net.UnixConn{}, time.Time{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range extensions {
		s.expireInTime(s.leases.extend(of, time.Now().Add(time.Hour)))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapObjects) - int64(before.HeapObjects); kept > extensions/10 {
		t.Errorf("%d objects are kept", kept)
	}
	tie.timer.Stop()
}

// The next server gets the open connections and the times of leases.
func TestHolders(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(ends[1]), "client")
	until := time.Now().Add(300 * time.Millisecond)
	d := &fakeDevices{released: make(chan uint32, 10), refused: make(chan uint32, 10), devices: map[uint32]loop.Status{}}
	s := &Server{Devices: d}
	for id, h := range map[uint32]Holder{
		1: {Conn: os.NewFile(uintptr(ends[0]), "server")}, 2: {Until: until}, 3: {Until: until.Add(time.Hour)}, 4: {Until: until.Add(time.Hour)},
	} {
		if err := s.Adopt(id, 7, h); err != nil {
			t.Fatal(err)
		}
		d.devices[id] = loop.Status{ID: id, DiskSequence: 7}
	}
	d.replace(3)
	delete(d.devices, 4)
	held, err := s.Holders()
	if err != nil || len(held) != 2 || held[1].Conn == nil || held[2].Conn != nil || !held[2].Until.Equal(until) {
		t.Errorf("holders %+v, error %v", held, err)
	}
	_ = held[1].Conn.Close()
	if id := <-d.released; id != 2 || time.Now().Before(until) {
		t.Errorf("device %d is released, %v before its time", id, time.Until(until))
	}
	_ = client.Close()
	if id := <-d.released; id != 1 {
		t.Errorf("device %d is released, want 1", id)
	}
}

// A lease of a removed device does not end the lease of the next device with the same id,
// neither when its connection closes nor when its time runs out.
func TestLeaseOfAnotherDevice(t *testing.T) {
	for _, kept := range []bool{false, true} {
		var l leases
		old := l.begin(device{1, 7}, &net.UnixConn{}, time.Time{})
		if kept && l.extend(old.device, time.Now()) != old {
			t.Fatal("the lease is not there")
		}
		next := l.begin(device{1, 8}, &net.UnixConn{}, time.Time{}) // the next device gets the id
		late := l.begin(device{1, 6}, &net.UnixConn{}, time.Time{}) // of a device that was removed before its lease began
		for _, tie := range []*lease{next, old, late} {
			if !l.end(tie) || l.end(tie) || l.expire(tie) {
				t.Errorf("kept %v: the lease of %+v does not end once", kept, tie.device)
			}
		}
	}
}

// keep does not take the lease of a removed device for that of the next one with the id.
func TestKeepForOfAnotherDevice(t *testing.T) {
	s := newStand(t)
	c := s.connect(t)
	if _, err := io.WriteString(c, post(fmt.Sprintf(`{"file":%q,"lease":true}`, file(t, "")))); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 201 {
		t.Fatalf("%+v, error %v", resp, err)
	}
	keep := request("POST", "/v1/devices/0/keep?for=1h")
	if status, answer := s.send(t, keep); status != 204 {
		t.Fatalf("%d %s", status, answer)
	}
	if status, answer := s.send(t, request("POST", "/v1/devices/0/keep?for=1h&diskseq=99")); status != 404 {
		t.Errorf("another device: %d %s", status, answer)
	}
	s.devices.replace(0)
	if status, answer := s.send(t, keep); status != 404 {
		t.Errorf("the next device: %d %s", status, answer)
	}
	if status, answer := s.send(t, request("POST", "/v1/devices/0/keep?for=1h&diskseq=1")); status != 404 {
		t.Errorf("the removed device: %d %s", status, answer)
	}
}

// A step of the wall clock does not change when a lease of the last server ends.
func TestAdoptByMonotonicClock(t *testing.T) {
	s := &Server{Devices: &fakeDevices{}}
	if err := s.Adopt(1, 7, Holder{Until: time.Now().Add(time.Hour).Round(0)}); err != nil {
		t.Fatal(err)
	}
	until := s.leases.byDevice[device{1, 7}].until
	if left := time.Until(until); until == until.Round(0) || left < time.Hour-time.Minute || left > time.Hour {
		t.Errorf("the lease ends at %v", until)
	}
}

// A device whose lease cannot be taken over is released, because nobody notices the end of its
// connection.
func TestAdoptWithoutConnection(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := &fakeDevices{released: make(chan uint32, 1), devices: map[uint32]loop.Status{1: {ID: 1, DiskSequence: 7}}}
	if err := (&Server{Devices: d}).Adopt(1, 7, Holder{Conn: w}); err == nil {
		t.Fatal("no error for a pipe")
	}
	select {
	case <-d.released:
	default:
		t.Error("the device is not released")
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the descriptor was open: %v", err)
	}
}

// If a server ends without an answer, the client asks once more: after an upgrade another
// server may answer.
func TestClientAsksAgain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := loop.OpenPath(file(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, answers := range []int{1, 2} { // 1: no answer; 2: an answer to the second request
		go func() {
			for i := range 2 {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = http.ReadRequest(bufio.NewReader(c))
				if i == answers-1 && answers == 2 {
					_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{\"id\":7}")
				}
				_ = c.Close()
			}
		}()
		lease, err := client.New(socket).Add(context.Background(), client.AddRequest{File: f.Name()}, client.Files{File: f})
		switch {
		case answers == 1 && !errors.Is(err, io.EOF):
			t.Errorf("without an answer: %v", err)
		case answers == 2 && (err != nil || lease.Device.ID != 7):
			t.Errorf("asked again: %+v, error %v", lease, err)
		}
	}
}

func TestClientWithoutServer(t *testing.T) {
	nobody := func(socket string) {
		t.Helper()
		if err := client.New(socket).Remove(context.Background(), &client.Device{}, false); !errors.Is(err, client.ErrNoServer) {
			t.Errorf("error %v, want client.ErrNoServer", err)
		}
	}
	socket := filepath.Join(t.TempDir(), "s")
	nobody(socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	nobody(socket) // the socket still exists
}

// If the client goes before it gets its answer, the server removes the device.
func TestClientGone(t *testing.T) {
	adding := make(chan struct{})
	s := newStandWith(t, adding, headerTimeout)
	for _, lease := range []bool{true, false} {
		c := s.connect(t)
		if _, err := io.WriteString(c, post(fmt.Sprintf(`{"file":%q,"lease":%v}`, file(t, ""), lease))); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		adding <- struct{}{}
		for deadline := time.Now().Add(time.Minute); s.devices.removed() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a device that nobody knows of is left")
			}
		}
	}
}

// The server closes descriptors that a request did not announce.
func TestDescriptorsAreClosed(t *testing.T) {
	s := newStand(t)
	for _, tt := range []struct {
		announced []string
		sent      int
	}{
		{nil, 1},
		{nil, 40},
		{[]string{"file", "file"}, 2},
		{[]string{"key"}, 2},
		{[]string{"else"}, 1},
		{[]string{"key"}, 1},
		{[]string{"file", "key", "file"}, 3},
		{nil, client.MaxDescriptors + 1},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		names, err := json.Marshal(tt.announced)
		if err != nil {
			t.Fatal(err)
		}
		c := s.connect(t)
		fds := slices.Repeat([]int{int(w.Fd())}, tt.sent)
		text := post(fmt.Sprintf(`{"file":"/x","descriptors":%s}`, names))
		if _, _, err := c.WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode != 400 {
			t.Errorf("%+v: status %d", tt, resp.StatusCode)
		}
		// A pipe reports its end when the server has closed all descriptors of the other
		// end.
		_ = r.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%+v: the server still has it: %v", tt, err)
		}
		_ = r.Close()
	}
}

// A client that does not close the pipe of its key gets an error, whether it is silent or
// goes on writing. The server closes the pipe.
func TestKeyWithoutEnd(t *testing.T) {
	t.Parallel() // it takes bodyTimeout
	s := newStand(t)
	for name, more := range map[string]bool{"silent": false, "writes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			c := s.connect(t)
			text := post(fmt.Sprintf(`{"file":%q,"descriptors":["key"]}`, file(t, "")))
			if _, _, err := c.WriteMsgUnix([]byte(text), unix.UnixRights(int(r.Fd())), nil); err != nil {
				t.Fatal(err)
			}
			_ = r.Close()
			gone := make(chan error, 1)
			go func() { gone <- writeUntilClosed(w, more) }() // received below
			_ = c.SetReadDeadline(time.Now().Add(2 * bodyTimeout))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 400 || !strings.Contains(string(body), "read the key: its end did not come") {
				t.Errorf("status %d, %s", resp.StatusCode, body)
			}
			if err := <-gone; !errors.Is(err, unix.EPIPE) {
				t.Errorf("write to the pipe: error %v, want EPIPE", err)
			}
		})
	}
}

// writeUntilClosed waits until the other end of a pipe is closed, and returns the error of
// a write to it. Until then it writes a byte twice a second, if more is set.
func writeUntilClosed(w *os.File, more bool) error {
	defer w.Close()
	for !more {
		fds := []unix.PollFd{{Fd: int32(w.Fd())}} // only POLLERR
		if n, _ := unix.Poll(fds, 1000); n > 0 {
			break
		}
	}
	for {
		if _, err := w.Write([]byte{1}); err != nil {
			return err
		}
		time.Sleep(time.Second / 2)
	}
}

// The server also closes descriptors that come with an incomplete request, when the
// client goes.
func TestDescriptorsOfHalfARequestAreClosed(t *testing.T) {
	s := newStand(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := s.connect(t)
	if _, _, err := c.WriteMsgUnix([]byte("POST /v1/dev"), unix.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), c.Close(), r.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server still has it: %v", err)
	}
}

// The server also closes descriptors that a read gets while the connection is being closed.
func TestDescriptorsAfterCloseAreClosed(t *testing.T) {
	s := newStand(t)
	c, err := newConn(s.connect(t), func() {})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rights := unix.UnixRights(dup(t, w))
	if err := errors.Join(w.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if err := c.keep(rights); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
	_ = r.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server still has it: %v", err)
	}
}

// Silent clients do not block other clients. The server accepts at most maxConns
// connections.
func TestManyConnections(t *testing.T) {
	// The silent connections must last until the end of the test.
	s := newStandWith(t, nil, time.Hour)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const more = 100
	if limit.Cur < 2*(maxConns+more)+100 {
		t.Skipf("this process may have %d files open", limit.Cur)
	}
	var conns []*net.UnixConn
	for range maxConns - 1 {
		conns = append(conns, s.connect(t))
	}
	last := s.connect(t) // another connection that lasts
	if _, err := io.WriteString(last, "GET /v1/devices HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("beside %d silent connections: %v, error %v", len(conns), resp, err)
	}
	conns = append(conns, last)
	for range more {
		c := s.connect(t)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("one too many is not closed: %v", err)
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		c := s.connect(t)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, request("GET", "/v1/devices")); err == nil {
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no connection after the others have gone")
		}
	}
}

func TestMayUse(t *testing.T) {
	self := uint32(os.Geteuid())
	if !mayUse(0) || !mayUse(self) || mayUse(self+1) {
		t.Errorf("root %v, self %v, another %v", mayUse(0), mayUse(self), mayUse(self+1))
	}
}
