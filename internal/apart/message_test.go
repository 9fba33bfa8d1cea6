package apart

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// fakeSandbox is a process that does not exist. It ends with the first kill.
type fakeSandbox struct {
	sandboxed
	ended chan struct{}
	kills atomic.Int32
}

func (f *fakeSandbox) Kill() {
	if f.kills.Add(1) == 1 {
		close(f.ended)
	}
}

func (f *fakeSandbox) Ended() <-chan struct{} { return f.ended }

func (f *fakeSandbox) State() *os.ProcessState { return nil }

// pair returns a process without a sandbox, and its end of the sockets.
func pair(t *testing.T) (*Process, socket) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	words, mouth, err := newLastWords()
	if err != nil {
		t.Fatal(err)
	}
	_ = mouth.Close()
	p := &Process{socket: ours, words: words, sandbox: &fakeSandbox{ended: make(chan struct{})}, asked: newAsked(), ended: make(chan struct{})}
	t.Cleanup(func() {
		p.close()
		_ = words.reason()
		_ = theirs.Close()
	})
	return p, socket{int(theirs.Fd())}
}

// receiving runs a function that receives messages of a process. It must end when there are no more and
// the process has ended, for which the end of the test waits: the function could otherwise receive from the
// sockets of the next test. The result does that earlier.
func receiving(t *testing.T, p *Process, its socket, receive func()) (end func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		receive()
	}()
	end = func() {
		_ = unix.Shutdown(its.fd, unix.SHUT_RDWR) // fails if the process has closed its end
		p.Kill()
		<-done
	}
	t.Cleanup(end)
	return end
}

// An error keeps its text, errno and hint on its way. Joined errors become one text.
func TestReport(t *testing.T) {
	p, its := pair(t)
	for _, want := range []error{
		nil, errors.New("no number"), unix.EIO, errors.Join(unix.ENOSPC, unix.EIO), hint.Add(unix.ENOMEM, "use less"),
	} {
		if err := its.say(want); err != nil {
			t.Fatal(err)
		}
		got := p.hear()
		var errno, wanted unix.Errno
		if errors.As(got, &errno) != errors.As(want, &wanted) || errno != wanted || (got == nil) != (want == nil) {
			t.Errorf("%v arrives as %v", want, got)
		}
		var hinted *hint.Error
		if errors.As(want, &hinted) {
			text := hinted.Hint
			if !errors.As(got, &hinted) || hinted.Hint != text {
				t.Errorf("the hint of %v arrives as %v", want, got)
			}
		}
		if got != nil && got.Error() != rawname.Error(want) {
			t.Errorf("%q arrives as %q", want, got)
		}
	}
	if err := its.say(errors.ErrUnsupported); err != nil {
		t.Fatal(err)
	}
	if err := p.hear(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ErrUnsupported arrives as %v", err)
	}
	if err := its.say(errors.New(strings.Repeat("x", maxReport))); err != nil {
		t.Fatal(err)
	}
	if err := p.hear(); err == nil || len(err.Error()) != maxError {
		t.Errorf("a long error: %v", err)
	}
}

// serveDevice makes a process serve a device, whose end and findings it returns.
func serveDevice(t *testing.T, p *Process, its socket, found func(serving.Finding)) (*Device, <-chan error) {
	t.Helper()
	d := p.Device()
	result := make(chan (<-chan error), 1)
	go func() {
		ended, err := d.Serve(&serving.Work{Found: found})
		if err != nil {
			t.Errorf("serve: %v", err)
		}
		result <- ended
	}()
	r := next(t, its)
	if r.Work == nil || r.Device != d.number {
		t.Fatalf("instead of the work of device %d comes %+v", d.number, r)
	}
	tell(t, its, report{ID: r.ID, Answer: &serving.Answer{}})
	return d, <-result
}

// next receives the next request.
func next(t *testing.T, its socket) request {
	t.Helper()
	r, _, err := its.receiveRequest(serving.MaxRequestFDs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tell(t *testing.T, its socket, reports ...report) {
	t.Helper()
	for _, r := range reports {
		if err := its.sendReport(r); err != nil {
			t.Fatal(err)
		}
	}
}

// Each request gets its own answer, in any order. Answers to nothing are ignored. When the context of a
// merge ends, the process is told, and its result counts. The end of the context ends the wait for another
// request.
func TestAsk(t *testing.T) {
	p, its := pair(t)
	endHearing := receiving(t, p, its, func() { _ = p.hearAll() })
	ctx, end := context.WithCancel(context.Background())
	defer end()
	d := p.Device()
	var chunks []chan uint64
	var ids []uint64
	for i := range 2 {
		chunks = append(chunks, make(chan uint64, 1))
		go func() {
			a, err := d.Ask(ctx, &serving.Request{Op: serving.Merge})
			if err != nil {
				t.Error(err)
			}
			chunks[i] <- a.Chunks
		}()
		ids = append(ids, next(t, its).ID)
	}
	saved := make(chan error, 1)
	go func() {
		_, err := d.Ask(ctx, &serving.Request{Op: serving.Save})
		saved <- err
	}()
	next(t, its)
	end()
	for range chunks {
		if r := next(t, its); !r.Cancel || !slices.Contains(ids, r.ID) {
			t.Errorf("at the end of the context comes %+v", r)
		}
	}
	if err := <-saved; !errors.Is(err, context.Canceled) {
		t.Errorf("the request that cannot be cancelled ends with %v", err)
	}
	tell(
		t, its, report{ID: 77, Answer: &serving.Answer{Chunks: 7}}, report{ID: ids[1], Answer: &serving.Answer{Chunks: 2}},
		report{ID: ids[0], Answer: &serving.Answer{Chunks: 1}}, report{ID: ids[0], Answer: &serving.Answer{Chunks: 9}},
	)
	if a, b := <-chunks[0], <-chunks[1]; a != 1 || b != 2 {
		t.Errorf("the answers are %d and %d, want 1 and 2", a, b)
	}
	endHearing()
	p.close()
	if _, err := d.Ask(context.Background(), &serving.Request{Op: serving.Save}); !errors.Is(err, errEnded) {
		t.Errorf("a request after the end: %v", err)
	}
}

// Each device gets its own findings and its own end. Reports about other devices are ignored. The end of
// the process is that of the devices that are left.
func TestDevices(t *testing.T) {
	p, its := pair(t)
	receiving(t, p, its, p.watch)
	found := make([]chan serving.Finding, 3)
	ends := make([]<-chan error, 3)
	devices := make([]*Device, 3)
	for i := range devices {
		found[i] = make(chan serving.Finding, 2)
		devices[i], ends[i] = serveDevice(t, p, its, func(f serving.Finding) { found[i] <- f })
	}
	failed := reportOf(unix.EIO)
	failed.Device = devices[1].number
	tell(
		t, its, report{Device: devices[2].number, Found: &serving.Finding{}}, report{Device: 1000, Found: &serving.Finding{}}, report{Device: 1000},
		report{Device: devices[0].number}, report{Device: devices[0].number}, failed,
	)
	if err := <-ends[0]; err != nil {
		t.Errorf("a device ends with %v", err)
	}
	if err := <-ends[1]; !errors.Is(err, unix.EIO) {
		t.Errorf("a device ends with %v, want EIO", err)
	}
	if len(found[0]) != 0 || len(found[1]) != 0 || len(found[2]) != 1 {
		t.Errorf("%d, %d and %d findings, want 0, 0 and 1", len(found[0]), len(found[1]), len(found[2]))
	}
	if err := its.say(unix.EXFULL); err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	select {
	case err := <-ends[0]:
		t.Errorf("a device has ended again: %v", err)
	default:
	}
	if err := <-ends[2]; !errors.Is(err, unix.EXFULL) || !errors.Is(p.Err(), unix.EXFULL) {
		t.Errorf("the last device ends with %v, the process with %v, want EXFULL", err, p.Err())
	}
}

// A request gets the error of its answer. A request for statistics ends with its context, and tells the
// process nothing. A second answer to a request does not block. The server forgets requests that have ended.
func TestAskEnds(t *testing.T) {
	p, its := pair(t)
	endWatch := receiving(t, p, its, p.watch)
	failed := make(chan error, 1)
	go func() {
		_, err := p.ask(context.Background(), request{Request: &serving.Request{Op: serving.Save}})
		failed <- err
	}()
	answer := reportOf(unix.ENOSPC)
	answer.ID = next(t, its).ID
	if err := its.sendReport(answer); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the error of an answer arrives as %v", err)
	}
	over, end := context.WithCancel(context.Background())
	end()
	if _, err := p.ask(over, request{Request: &serving.Request{Op: serving.Stats}}); !errors.Is(err, context.Canceled) {
		t.Errorf("statistics after the end of the context: %v", err)
	}
	id, _ := p.expect()
	p.answer(&report{ID: id})
	p.answer(&report{ID: id})
	p.forget(id)
	forgotten, _ := p.expect()
	p.forget(forgotten)
	if len(p.answers) != 0 {
		t.Errorf("%d requests are kept", len(p.answers))
	}
	p.Kill()
	if _, err := p.ask(context.Background(), request{Request: &serving.Request{Op: serving.Save}}); !errors.Is(err, errEnded) {
		t.Errorf("a request after the end of the process: %v", err)
	}
	endWatch()
	<-p.Ended()
}

// An error and its hint keep the bytes of a name that is not UTF-8, also where the error is cut.
func TestReportOfRawName(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.close()
	defer theirs.Close()
	long := strings.Repeat("\u00e9", maxError)
	for name, want := range map[string]string{"caf\xe9": `caf\xe9`, long: long[:maxError], "x" + long: "x" + long[:maxError-2]} {
		if err := (socket{int(theirs.Fd())}).say(&hint.Error{Err: errors.New(name), Hint: "remove \xe9"}); err != nil {
			t.Fatal(err)
		}
		err := ours.hear()
		var hinted *hint.Error
		if err == nil || err.Error() != want || !errors.As(err, &hinted) || hinted.Hint != `remove \xe9` {
			t.Errorf("%.20q becomes %.20q", name, err)
		}
	}
}

// The process cannot leave a descriptor in the server, also not with the message that ends its messages.
func TestDescriptorsOfTheProcess(t *testing.T) {
	for name, text := range map[string]string{"an empty message": "", "a report": `{"id": 1}`} {
		p, its := pair(t)
		theirs, isClosed := watched(t)
		if err := sendAny(its.fd, []byte(text), unix.UnixRights(int(theirs.Fd()))); err != nil {
			t.Fatal(err)
		}
		if _, err := p.socket.receiveReport(make([]byte, maxReport)); err == nil {
			t.Errorf("%s with a descriptor is received", name)
		}
		isClosed()
	}
}

// sendAny sends a message that may be empty. The functions of package unix add a byte to an empty message
// with descriptors.
func sendAny(fd int, text, rights []byte) error {
	message := unix.Msghdr{Control: &rights[0]}
	message.SetControllen(len(rights))
	part := unix.Iovec{Base: unsafe.SliceData(append(text, 0))}
	part.SetLen(len(text))
	message.Iov = &part
	message.SetIovlen(1)
	if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), 0); errno != 0 {
		return errno
	}
	return nil
}
