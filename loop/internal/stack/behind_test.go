package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// An eager store has no room for the next area, so that the record of a first write cannot be saved. A
// second write to the chunk must not succeed either before the record is saved: a server that is killed would lose it.
func TestWritesBehindAFailedCommit(t *testing.T) {
	if !ublktest.Alone(t) {
		return
	}
	const records = 256 // of an area
	dir := snapshotDir(t)
	if err := errors.Join(os.Truncate(filepath.Join(dir, "A"), 512*4096), os.Truncate(filepath.Join(dir, "B"), 4<<20)); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "0 4096 snapshot $A $B P 8", Options{Eager: true}, func(b *bed) {
		write := func(chunk int, value byte) ublktest.Request {
			return ublktest.Request{Op: ublk.OpWrite, StartSector: uint64(8 * chunk), Sectors: 8, Data: bytes.Repeat([]byte{value}, 4096)}
		}
		for i := range records - 1 {
			b.must(write(i, 1))
		}
		undo := ublktest.LimitFileSize(t, (2+records)*4096)
		for _, value := range []byte{2, 3} {
			if r := b.Do(write(records-1, value)); r.Result != -int32(unix.EFBIG) {
				t.Errorf("write %d without room for the next area: result %d", value, r.Result)
			}
		}
		undo()
		b.must(write(records-1, 4))
		image, n := shownBy(t, dir, 4096)
		if n != records || image[(records-1)*4096] != 4 {
			t.Errorf("a server that is killed leaves %d records, and value %d", n, image[(records-1)*4096])
		}
	})
}
