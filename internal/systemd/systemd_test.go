package systemd

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

func TestEscapePath(t *testing.T) {
	for path, want := range map[string]string{
		"/dev/ublkb12":  "dev-ublkb12",
		"/dev/a-b/c.d/": `dev-a\x2db-c.d`,
		"/.x":           `\x2ex`,
	} {
		if got := escapePath(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// The unit ends after the mounts of its device, and before those of its files. It has as much time for
// what is not written yet as ublk-loop.service.
func TestScopeProperties(t *testing.T) {
	s := &Scope{Name: "x.scope", Description: "text", PIDs: []int{7, 8}, Device: "/dev/ublkb3", Paths: []string{"/srv/a"}}
	got := map[string]any{}
	for _, p := range s.properties() {
		got[p.Name] = p.Value.Value()
	}
	want := map[string]any{
		"Description": "text", "Documentation": []string{"man:ublk-loop(8)"}, "PIDs": []uint32{7, 8}, "KillMode": "control-group",
		"CollectMode": "inactive-or-failed", "DefaultDependencies": false, "Wants": []string{"blockdev@dev-ublkb3.target"},
		"Before": []string{"blockdev@dev-ublkb3.target", "shutdown.target"}, "Conflicts": []string{"shutdown.target"},
		"RequiresMountsFor": []string{"/srv/a"}, "TimeoutStopUSec": uint64(600_000_000),
		"TasksMax": uint64(math.MaxUint64),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// systemd-oomd leaves the server alone. An older systemd does not know that property, and gets a scope without it.
func TestScopeOfOlderSystemd(t *testing.T) {
	unknown := dbus.Error{Name: "org.freedesktop.DBus.Error.PropertyReadOnly"}
	for _, c := range []struct {
		answers []error
		last    bool // whether the last call has the property
		want    error
	}{
		{[]error{nil}, true, nil},
		{[]error{unknown, nil}, false, nil},
		{[]error{unix.EIO}, true, unix.EIO},
	} {
		calls, last := 0, false
		err := (&Scope{Name: "x.scope"}).withProperties(func(properties []property) error {
			last = slices.ContainsFunc(properties, func(p property) bool {
				return p.Name == "ManagedOOMPreference" && p.Value.Value() == "omit"
			})
			calls++
			return c.answers[calls-1]
		})
		if !errors.Is(err, c.want) || calls != len(c.answers) || last != c.last {
			t.Errorf("%v: error %v after %d calls, the last one with the property: %v", c.answers, err, calls, last)
		}
	}
}

// The process is in the scope as soon as its cgroup is the scope's. The end of the job counts
// only if it comes without that.
func TestWaitFor(t *testing.T) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.TrimSuffix(string(text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:]), "\n")
	own := here[strings.LastIndexByte(here, '/')+1:]
	if !(&Scope{Name: own, PIDs: []int{os.Getpid()}}).hasProcesses() {
		t.Errorf("not in %q", own)
	}
	for cgroups, want := range map[string]bool{
		"0::/system.slice/x.scope\n": true, "2:cpu:/\n1:name=systemd:/system.slice/x.scope\n0::/\n": true,
		"0::/system.slice/xx.scope\n": false, "0::/x.scope/below\n": false, "": false,
	} {
		if isIn(cgroups, "x.scope") != want {
			t.Errorf("%q: %t", cgroups, !want)
		}
	}
	const job = dbus.ObjectPath("/job/1")
	removed := func(job dbus.ObjectPath, result string) *dbus.Signal {
		return &dbus.Signal{Name: "org.freedesktop.systemd1.Manager.JobRemoved", Body: []any{uint32(1), job, "x.scope", result}}
	}
	elsewhere := &Scope{Name: "no-such.scope", PIDs: []int{os.Getpid()}}
	for _, result := range []string{"done", "failed"} {
		signals := make(chan *dbus.Signal, 2)
		signals <- removed("/job/2", "failed")
		signals <- removed(job, result)
		if err := elsewhere.waitFor(t.Context(), job, signals, nil); !errors.Is(err, unix.ESRCH) || !strings.Contains(err.Error(), result) {
			t.Errorf("%s: %v", result, err)
		}
	}
	signals := make(chan *dbus.Signal)
	close(signals)
	if err := elsewhere.waitFor(t.Context(), job, signals, nil); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a closed connection: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := elsewhere.waitFor(ctx, job, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	// The process is there, and no job ends.
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := (&Scope{Name: own, PIDs: []int{os.Getpid()}}).waitFor(ctx, job, nil, nil); err != nil {
		t.Error(err)
	}
}

// A socket counts only if the expected process listens: another systemd knows processes by
// other numbers.
func TestConnectChecksThePeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "private")
	if _, err := connect(context.Background(), path, 1); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				accepted <- err
				return
			}
			_ = c.Close()
		}
	}()
	self := int32(os.Getpid())
	if _, err := connect(context.Background(), path, self+1); !errors.Is(err, ErrNotRunning) {
		t.Errorf("another process listens: %v", err)
	}
	if _, err := connect(context.Background(), path, self); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("the peer closes the connection: %v", err)
	}
	_ = l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := connect(context.Background(), path, self); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
}

// An entry is one datagram in journald's native protocol. If the journal takes no more, it
// is lost and the caller does not wait.
func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	if _, err := openJournal(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	journal, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	fields := []Field{{"MESSAGE", "a=b"}, {"TEXT", "1\n2"}}
	if err := Log(journal, fields); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	n, err := c.Read(got)
	if want := "MESSAGE=a=b\nTEXT\n\x03\x00\x00\x00\x00\x00\x00\x001\n2\n"; err != nil || string(got[:n]) != want {
		t.Errorf("%q, %v, want %q", got[:n], err, want)
	}
	for range 100000 { // more than the queue of any socket
		if err = Log(journal, fields); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full queue: %v, want EAGAIN", err)
	}
}
