package apart

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// bothEnds returns both sides of a process without a sandbox, as goroutines.
func bothEnds(t *testing.T) (*Process, *child) {
	t.Helper()
	p, its := pair(t)
	c, _ := runChild(t, p, its)
	receiving(t, p, its, p.watch)
	return p, c
}

// goesOn checks that the process still answers requests.
func goesOn(t *testing.T, p *Process) {
	t.Helper()
	ctx, end := context.WithTimeout(context.Background(), 10*time.Second)
	defer end()
	if _, err := p.Device().Ask(ctx, &serving.Request{Op: serving.Save}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the next request gets %v, want ENODEV", err)
	}
}

// await returns the error of an answer.
func await(t *testing.T, p *Process, answer <-chan *report) error {
	t.Helper()
	select {
	case a := <-answer:
		return a.err()
	case <-p.sandbox.Ended():
		t.Fatal("the process has ended")
		return nil
	}
}

func secret(t *testing.T, n int) *transfer.Secret {
	t.Helper()
	key, err := transfer.NewSecret(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(key.Close)
	return key
}

// The process refuses a request for whose descriptors it has no room, and goes on. It closes those that have
// come, and takes the key, if there is one, for nothing else.
func TestNoRoomForDescriptors(t *testing.T) {
	p, _ := bothEnds(t)
	theirs, isClosed := watched(t)
	fds := slices.Repeat([]int{int(theirs.Fd())}, serving.MaxFDs+10)
	for _, key := range []*transfer.Secret{nil, secret(t, 64)} {
		if _, err := p.Device().Serve(&serving.Work{FDs: fds, Key: key}); !errors.Is(err, unix.EMFILE) {
			t.Errorf("a work with %d descriptors: %v, want EMFILE", len(fds), err)
		}
		goesOn(t, p)
	}
	isClosed()
}

// A request that fails, or whose device has ended, leaves no descriptor open in the process.
func TestRefusedGrowth(t *testing.T) {
	p, c := bothEnds(t)
	d := p.Device()
	c.mu.Lock()
	c.devices[d.number] = &servedDevice{&serving.Served{}, closed()}
	c.mu.Unlock()
	for _, op := range []serving.Op{serving.Grow, serving.Reload, serving.Merge} {
		theirs, isClosed := watched(t)
		if _, err := d.Ask(context.Background(), &serving.Request{Op: op, FDs: []int{int(theirs.Fd())}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", op, err)
		}
		isClosed()
	}
}

// watched returns a descriptor to send. isClosed closes it, and checks that no copy of it is open.
func watched(t *testing.T) (theirs *os.File, isClosed func()) {
	t.Helper()
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return theirs, func() {
		t.Helper()
		defer func() { _ = ours.Close() }()
		_ = theirs.Close()
		if err := ours.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a descriptor stays open: %v", err)
		}
	}
}

// A work whose key cannot be sent, or for whose key the process has no memory, fails alone.
func TestKeyFails(t *testing.T) {
	p, _ := bothEnds(t)
	if err := unix.SetsockoptInt(p.socket.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil { // the kernel takes its minimum
		t.Fatal(err)
	}
	if _, err := p.Device().Serve(&serving.Work{File: &serving.File{}, Key: secret(t, 64<<10)}); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a long key: %v, want EMSGSIZE", err)
	}
	goesOn(t, p)
	id, answer := p.expect()
	defer p.forget(id)
	if err := p.socket.sendRequest(request{head: head{ID: id, KeyBytes: 1 << 50}, Work: &serving.Work{}}); err != nil {
		t.Fatal(err)
	}
	if err := p.socket.send([]byte("the key")); err != nil {
		t.Fatal(err)
	}
	if err := await(t, p, answer); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("a key without memory: %v, want ENOMEM", err)
	}
	goesOn(t, p)
}

// An answer that is too long for a report is an error of its request only.
func TestLongAnswer(t *testing.T) {
	p, c := bothEnds(t)
	id, answer := p.expect()
	defer p.forget(id)
	var long serving.Answer
	if err := json.Unmarshal([]byte(`{"Usages": [{"State": "`+strings.Repeat("x", maxReport)+`"}]}`), &long); err != nil {
		t.Fatal(err)
	}
	c.answer(&request{head: head{ID: id}}, long, nil)
	if err := await(t, p, answer); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("error %v, want EMSGSIZE", err)
	}
	goesOn(t, p)
}

// The process carries out the requests of a device in the order in which they come, also those that come
// while another is carried out.
func TestOrder(t *testing.T) {
	p, its := pair(t)
	c, _ := runChild(t, p, its)
	const device, requests = 7, 50
	earlier := make(chan struct{})
	c.mu.Lock()
	c.devices[device] = &servedDevice{&serving.Served{}, earlier}
	c.mu.Unlock()
	for id := range uint64(requests) {
		r := request{head: head{ID: id + 1, Device: device}, Request: &serving.Request{Op: serving.Resume}}
		if err := p.socket.sendRequest(r); err != nil {
			t.Fatal(err)
		}
	}
	r := request{head: head{ID: requests + 1, Device: device}, Request: &serving.Request{Op: serving.Merge}}
	if err := p.socket.sendRequest(r); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxReport)
	if r, err := p.socket.receiveReport(buf); err != nil || r.ID != requests+1 {
		t.Fatalf("the first answer is %+v, error %v, want that of the request without a turn", r, err)
	}
	close(earlier)
	for id := range uint64(requests) {
		r, err := p.socket.receiveReport(buf)
		if err != nil || r.ID != id+1 {
			t.Fatalf("answer %d is %+v, error %v", id+1, r, err)
		}
	}
}

// A process that sends an empty report is killed. Its devices do not end in order.
func TestReportAboutNothing(t *testing.T) {
	p, its := pair(t)
	receiving(t, p, its, p.watch)
	_, ended := serveDevice(t, p, its, nil)
	tell(t, its, report{})
	if err := <-ended; !errors.Is(err, unix.EBADMSG) || !errors.Is(p.Err(), unix.EBADMSG) {
		t.Errorf("the device ends with %v, the process with %v, want EBADMSG", err, p.Err())
	}
}

// Requests that end or undo others need no descriptor. The server sends them, and the process takes them, however
// many files are open.
func TestNoDescriptorsLeft(t *testing.T) {
	p, _ := bothEnds(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}()
	for _, op := range []serving.Op{serving.Stats, serving.Resume, serving.Save, serving.Apply, serving.Undo} {
		r := &serving.Request{Op: op, Number: 1 << 63, Patience: 1 << 62}
		if _, err := p.Device().Ask(context.Background(), r); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: %v, want ENODEV", op, err)
		}
	}
	if _, err := p.Device().Ask(context.Background(), &serving.Request{Op: serving.Hold, FDs: []int{p.socket.fd}}); !errors.Is(err, unix.EMFILE) {
		t.Errorf("a request with a descriptor: %v, want EMFILE", err)
	}
	work := &serving.Work{File: &serving.File{Transfer: strings.Repeat("x", maxMessage)}}
	if _, err := p.Device().Serve(work); !errors.Is(err, unix.EMFILE) {
		t.Errorf("a long request: %v, want EMFILE", err)
	}
	goesOn(t, p)
}

// The process makes all rings with the same function, those of threads that devices share and others.
func TestNewRingOfProcess(t *testing.T) {
	for name, pool := range map[string]*serving.Pool{"own threads": nil, "shared threads": {}} {
		t.Run(name, func(t *testing.T) {
			p, its := pair(t)
			refuse := func(ring.Options) (*ring.Ring, error) { return nil, unix.EXFULL }
			c := newChild(its, Hooks{Queues: func(int) error { return nil }, Answered: func() {}}, refuse)
			receiving(t, p, its, func() { _ = c.receiveAll() })
			receiving(t, p, its, p.watch)
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = null.Close() }()
			work := &serving.Work{
				Queues: ublk.QueueTask{Info: ublk.Info{Queues: 1, Depth: 1}, CPUs: [][]byte{nil}}, Pool: pool,
				File: &serving.File{Sector: 512}, FDs: []int{int(null.Fd()), int(null.Fd())},
			}
			if _, err := p.Device().Serve(work); !errors.Is(err, unix.EXFULL) {
				t.Errorf("error %v, want EXFULL", err)
			}
			goesOn(t, p)
		})
	}
}
