package target

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// xor returns a transfer that a test can undo itself.
func xor(t *testing.T) transfer.Transfer {
	t.Helper()
	key, err := transfer.NewSecret(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(key.Close)
	copy(key.Bytes(), []byte{0x5c, 0xa7, 0x11})
	tr, err := transfer.New(transfer.XOR, key, transfer.Options{SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// A write is encrypted once, however often it is repeated. A read is decrypted once, when
// it is complete. The kernel cannot commit a read by itself, because this process must
// decrypt the data.
func TestTransferOnce(t *testing.T) {
	for _, depth := range []int{alone, together} {
		tr := xor(t)
		f := memoryFile(t, bytes.Repeat([]byte("0123456789abcde"), 4096))
		d := ublktest.NewDisk(t, depth, &Target{Backing: &backing.Backing{FD: int(f.Fd()), Offset: testOffset}, Transfer: tr})
		stored := pattern(testBytes)
		tr.Encrypt(stored, testStart)
		for _, results := range [][]int32{nil, answers(failed(unix.EINTR), failed(unix.EAGAIN), failed(unix.EINTR))} {
			clearRange(t, f)
			r := d.Do(request(ublk.OpWrite, results...))
			wantResult(t, r, testBytes, len(results)+1)
			if !bytes.Equal(content(t, f), stored) {
				t.Errorf("after %d, the file does not have what was encrypted once", results)
			}
			r = d.Do(request(ublk.OpRead, results...))
			wantResult(t, r, testBytes, len(results)+1)
			if !bytes.Equal(r.Data, pattern(testBytes)) || r.Linked {
				t.Errorf("after %d, other bytes than were written, or left to the kernel: %v", results, r.Linked)
			}
		}
	}
}

func clearRange(t *testing.T, f *os.File) {
	t.Helper()
	if _, err := f.WriteAt(make([]byte, testBytes), testAt); err != nil {
		t.Fatal(err)
	}
}

// The parts of a read are decrypted together when the read is complete.
func TestTransferInParts(t *testing.T) {
	tr := xor(t)
	reader, writer := pipe(t)
	d := ublktest.NewDisk(t, together, &Target{Backing: &backing.Backing{FD: reader}, Transfer: tr})
	stored := pattern(testBytes)
	tr.Encrypt(stored, testStart)
	rest := stored[700:]
	write(t, writer, stored[:700])
	req := request(ublk.OpRead)
	req.Ended = func(int32) { // a short count means that the pipe is empty
		n := min(1000, len(rest))
		write(t, writer, rest[:n])
		rest = rest[n:]
	}
	r := d.Do(req)
	wantResult(t, r, testBytes, 5)
	if !bytes.Equal(r.Data, pattern(testBytes)) {
		t.Error("other bytes than were written")
	}
}
