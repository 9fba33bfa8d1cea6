package cowfile

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// directory returns a directory for files, and sets that of the locks.
func directory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	before := lockDir
	lockDir = filepath.Join(dir, "locks")
	t.Cleanup(func() { lockDir = before })
	return dir
}

// newBase makes an image of random bytes.
func newBase(t *testing.T, dir string, size int) string {
	t.Helper()
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, randomBytes(rand.New(rand.NewPCG(1, 1)), size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 4)) }

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func create(t *testing.T, o CreateOptions) string {
	t.Helper()
	if err := Create(o); err != nil {
		t.Fatal(err)
	}
	return o.Path
}

// change writes n random chunks of the origin to the store, and returns what the snapshot
// shows.
func change(t *testing.T, path, origin string, n int, seed uint64) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image := content(t, origin)
	fillStore(t, f, image, n, seed)
	return image
}

// storeFile is what fillStore writes to.
type storeFile interface {
	medium
	io.Seeker
}

// fillStore changes n chunks of an image and puts them into its store. Runs of chunks are
// contiguous in both.
func fillStore(t *testing.T, f storeFile, image []byte, n int, seed uint64) {
	t.Helper()
	h, err := snapshot.ReadHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	l := h.Layout
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	chunks, err := l.OriginChunks(uint64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	index := snapshot.NewIndex(make([]uint32, chunks))
	state, err := snapshot.Load(f, l, uint64(size), index)
	if err != nil {
		t.Fatal(err)
	}
	log, err := snapshot.NewLog(l, state, make([]byte, l.ChunkSize()), 4096)
	if err != nil {
		t.Fatal(err)
	}
	free := snapshot.NewAllocator(l, uint64(size), state)
	random := rand.New(rand.NewPCG(seed, 2))
	for n > 0 {
		old := random.Uint64N(chunks)
		for range 1 + random.IntN(5) {
			if n == 0 || old == chunks || !index.Claim(old) {
				break
			}
			chunk, err := free.Allocate()
			if err != nil {
				t.Fatal(err)
			}
			data := randomBytes(random, int(l.ChunkSize()))
			copy(image[old<<l.Shift():], data)
			write(t, f, data, l.Offset(chunk))
			addRecord(t, f, log, snapshot.Record{Old: old, New: chunk})
			index.Publish(old, chunk)
			old, n = old+1, n-1
		}
	}
}

func addRecord(t *testing.T, f medium, log *snapshot.Log, e snapshot.Record) {
	t.Helper()
	b := log.Append([]snapshot.Record{e})
	if b.Count != 1 {
		t.Fatal("the store has stale records")
	}
	if b.Zero.Length != 0 {
		write(t, f, make([]byte, b.Zero.Length), b.Zero.Offset)
	}
	write(t, f, b.Records.Data, b.Records.Offset)
	log.Commit()
}

func write(t *testing.T, f medium, b []byte, at int64) {
	t.Helper()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("%d bytes, want %d; the first difference is at byte %d", len(got), len(want), i)
		}
	}
	t.Fatalf("%d bytes, want %d", len(got), len(want))
}
