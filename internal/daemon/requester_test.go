package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// The errno and the hint of an error reach the process that has asked for the device.
func TestFailure(t *testing.T) {
	cause := hint.Add(fmt.Errorf("open it: %w", unix.EBUSY), "insist with {shared}")
	a := failure(cause)
	err := a.err()
	var h *hint.Error
	if !errors.Is(err, unix.EBUSY) || err.Error() != cause.Error() || !errors.As(err, &h) || h.Hint != "insist with --shared" {
		t.Errorf("%v becomes %+v, hint %+v", cause, err, h)
	}
	a = failure(fmt.Errorf("attach it: %w", errors.ErrUnsupported))
	if err := a.err(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ErrUnsupported becomes %+v", err)
	}
	a = failure(errors.New("no errno"))
	if err := a.err(); errors.As(err, new(unix.Errno)) || err.Error() != "no errno" {
		t.Errorf("an error without errno becomes %+v", err)
	}
}

// An answer is one line, from which a device and an error can be told apart.
func TestAnswer(t *testing.T) {
	for _, a := range []answer{{Device: &client.Device{ID: 3}}, {Device: &client.Device{ID: 3}, Apart: 7}, {Error: "no\nroom", Hint: "make some"}} {
		line, err := json.Marshal(a)
		if err != nil || bytes.Contains(line, []byte("\n")) {
			t.Fatalf("%s, %v", line, err)
		}
		var got answer
		if err := json.Unmarshal(line, &got); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%s becomes %+v, %v", line, got, err)
		}
	}
}
