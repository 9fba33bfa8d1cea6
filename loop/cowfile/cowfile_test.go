package cowfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

func fails(t *testing.T, err error, want error, text string) {
	t.Helper()
	if !errors.Is(err, want) || err.Error() != text {
		t.Errorf("error %q (%v), want %q", err, want, text)
	}
}

func TestCreate(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20+512)
	path := filepath.Join(dir, "store")
	if err := Create(CreateOptions{Path: path, Origin: base, ChunkSize: 4096}); err != nil {
		t.Fatal(err)
	}
	info, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	l := info.Label
	if info.Path != path || !info.Valid || info.ChunkSize != 4096 || info.Chunks != 0 || l.OriginPath != base || l.OriginSize != 1<<20+512 || l.Frozen {
		t.Errorf("%+v, label %+v", info, l)
	}
	// 257 chunks: header, area, 256 chunks, area, chunk
	if want := (snapshot.Usage{Allocated: 16, Total: 260 * 8, Metadata: 16}); info.Usage != want {
		t.Errorf("%+v, want %+v", info.Usage, want)
	}
	if marked, err := Inspect(base); !errors.Is(err, snapshot.ErrNoStore) {
		t.Errorf("%+v, error %v", marked, err)
	}
	before := content(t, path)
	fails(t, Create(CreateOptions{Path: path, Origin: base}), os.ErrExist, "open "+path+": file exists")
	fails(t, Create(CreateOptions{Path: path + "2", Origin: path}), unix.EINVAL, path+" is a store itself: invalid argument")
	fails(t, Create(CreateOptions{Path: path + "2", Origin: base, ChunkSize: 5000}), snapshot.ErrChunkSize,
		"chunk size: 5000 bytes, not a power of 2 from 4096 to 1048576: invalid chunk size")
	fails(t, Create(CreateOptions{Path: path + "2", Origin: base, ChunkSize: 4096, Size: 3*4096 - 1}), snapshot.ErrTooSmall, "12287 bytes: store too small")
	err = Create(CreateOptions{Path: path + "2", Origin: base, ChunkSize: 4096, Size: 3*4096 - 1})
	if h := (*hint.Error)(nil); !errors.As(err, &h) || h.Hint != "the smallest size with these chunks is 12288" {
		t.Errorf("hint %v", h)
	}
	if _, _, err := labelAbove(""); !errors.As(err, new(*hint.Error)) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a device without a store: error %v has no hint", err)
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("left are %v, error %v", left, err)
	}
	same(t, content(t, path), before)
	if _, err := os.Stat(lockDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("locks are left: %v", err)
	}
}

// Several stores have one base. It is writable when the last of them has been merged.
func TestBaseOfTwoStores(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	a := create(t, CreateOptions{Path: filepath.Join(dir, "a"), Origin: base, ChunkSize: 4096})
	b := create(t, CreateOptions{Path: filepath.Join(dir, "b"), Origin: base, ChunkSize: 8192})
	want := change(t, a, base, 20, 1)
	change(t, b, base, 5, 2)
	before := content(t, base)
	_, err := Merge(context.Background(), MergeOptions{Path: a})
	fails(t, err, unix.EPERM, "open "+base+": base of 2 stores: operation not permitted")
	_, err = Merge(context.Background(), MergeOptions{Path: a, Base: base})
	fails(t, err, unix.EPERM, "open "+base+": base of 2 stores: operation not permitted")
	same(t, content(t, base), before)
	label := func(path string) snapshot.UUID {
		info, err := Inspect(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Label.UUID
	}
	removed, err := Thaw(base)
	if err != nil || !slices.Equal(removed, []snapshot.UUID{label(a), label(b)}) {
		t.Errorf("removed %v, error %v", removed, err)
	}
	_, err = Merge(context.Background(), MergeOptions{Path: a})
	fails(t, err, unix.EPERM, base+" does not say that it is the base of "+a+": operation not permitted")
	merged, err := Merge(context.Background(), MergeOptions{Path: a, Base: base})
	if err != nil || merged.Base != base || merged.Chunks != 20 {
		t.Errorf("%+v, error %v", merged, err)
	}
	same(t, content(t, base), want)
}

// The only store of a base is merged without naming the base, and can then be used again.
func TestMerge(t *testing.T) {
	for _, size := range []int{1 << 20, 1<<20 + 512, 1<<20 - 512, 3 << 20} {
		dir := directory(t)
		base := newBase(t, dir, size)
		path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
		for round, n := range []int{100, 1, (size + 4095) / 4096} {
			want := change(t, path, base, n, uint64(round))
			o := MergeOptions{Path: path}
			if round > 0 { // the first merge removes the mark
				o.Base = base
			}
			merged, err := Merge(context.Background(), o)
			if err != nil || merged.Chunks != uint64(n) {
				t.Fatalf("size %d: %+v, error %v", size, merged, err)
			}
			same(t, content(t, base), want)
			if removed, err := Thaw(base); err != nil || len(removed) > 0 {
				t.Fatalf("stores %v still need the base, error %v", removed, err)
			}
			info, err := Inspect(path)
			if err != nil || info.Chunks != 0 || info.Usage.Allocated != 16 || info.Usage.Metadata != 16 {
				t.Fatalf("%+v, error %v", info, err)
			}
		}
		b, err := openLocked(base, &backing.Options{}) // nothing needs it any longer
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A store that is attached, or whose base is, stays as it is.
func TestAttachedIsRefused(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	change(t, path, base, 10, 1)
	before := content(t, path)
	for _, c := range []struct {
		attached string
		readOnly bool
		merge    string
		diff     string
		thaw     string
	}{
		{path, false, "another reader or writer", "a writer", ""},
		{base, true, "another reader or writer", "", "another reader or writer"},
	} {
		b, err := openLocked(c.attached, &backing.Options{ReadOnly: c.readOnly})
		if err != nil {
			t.Fatal(err)
		}
		busy := func(err error, by string) {
			t.Helper()
			if by == "" && err != nil || by != "" && (!errors.Is(err, unix.EBUSY) || err.Error() != "open "+c.attached+": already in use by "+by+": device or resource busy") {
				t.Errorf("%v", err)
			}
		}
		_, err = Merge(context.Background(), MergeOptions{Path: path})
		busy(err, c.merge)
		_, err = Diff(path)
		busy(err, c.diff)
		_, err = Thaw(base)
		busy(err, c.thaw)
		if c.thaw == "" {
			err = Create(CreateOptions{Path: filepath.Join(dir, "second"), Origin: base})
			busy(err, "")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		same(t, content(t, path), before)
	}
	b, err := openLocked(base, &backing.Options{Thaw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = Create(CreateOptions{Path: filepath.Join(dir, "third"), Origin: base})
	fails(t, err, unix.EBUSY, "open "+base+": already in use by a writer: device or resource busy")
	if h := (*hint.Error)(nil); !errors.As(err, &h) || !strings.Contains(h.Hint, "ublk-loop list FILE") {
		t.Errorf("hint %v", h)
	}
}

func TestDiff(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20+512)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	before := content(t, base)
	for _, n := range []int{60, 197} { // some of the chunks, and then all
		after := change(t, path, base, n, uint64(n))
		c, err := Diff(path)
		if err != nil || c.ChunkSize != 4096 || c.OriginSize != 1<<20+512 {
			t.Fatalf("%+v, error %v", c, err)
		}
		last := uint64(0)
		for i, r := range c.Ranges {
			if r.Length == 0 || i > 0 && r.Offset <= last {
				t.Fatalf("range %d is %+v", i, r)
			}
			last = r.Offset + r.Length
			copy(before[r.Offset:last], after[r.Offset:last])
		}
		same(t, before, after)
		if n == 197 && (len(c.Ranges) != 1 || c.Ranges[0] != Range{0, 1<<20 + 512}) {
			t.Errorf("all has changed: %v", c.Ranges)
		}
	}
}

// Stores that break a rule are neither listed nor merged.
func TestHostileStore(t *testing.T) {
	for name, c := range map[string]struct {
		area []uint64
		want error
		diff bool // Diff notices it too
		info bool // and Inspect
	}{
		"old outside":     {[]uint64{1000, 2}, snapshot.ErrOldRange, true, true},
		"old too large":   {[]uint64{1 << 60, 2}, snapshot.ErrOldRange, true, true},
		"new outside":     {[]uint64{0, 1 << 40}, snapshot.ErrNewRange, true, true},
		"new is an area":  {[]uint64{0, 1}, snapshot.ErrMetadata, true, true},
		"the same old":    {[]uint64{0, 2, 0, 3}, snapshot.ErrDuplicateOld, true, false},
		"the same new":    {[]uint64{0, 2, 1, 2}, snapshot.ErrDuplicateNew, false, false},
		"a wrong second":  {[]uint64{0, 2, 1, 0xffffffffffffffff}, snapshot.ErrNewRange, true, true},
		"header as chunk": {[]uint64{5, 258}, snapshot.ErrMetadata, true, true},
	} {
		dir := directory(t)
		base := newBase(t, dir, 1<<20)
		before := content(t, base)
		path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range c.area {
			for k := range 8 {
				write(t, f, []byte{byte(n >> (8 * k))}, int64(4096+8*i+k))
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Merge(context.Background(), MergeOptions{Path: path}); !errors.Is(err, c.want) {
			t.Errorf("%s: merge: %v", name, err)
		}
		if _, err := Diff(path); errors.Is(err, c.want) != c.diff {
			t.Errorf("%s: diff: %v", name, err)
		}
		if _, err := Inspect(path); errors.Is(err, c.want) != c.info {
			t.Errorf("%s: info: %v", name, err)
		}
		// The server of a device reads the records. A table needs only the header, in one read.
		if _, err := Table(TableOptions{Origin: base, Path: path}); err != nil {
			t.Errorf("%s: table: %v", name, err)
		}
		same(t, content(t, base), before)
	}
}

// An invalid store is described, and neither listed nor merged.
func TestInvalidStore(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	change(t, path, base, 5, 1)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, []byte{0}, 4)
	_, err = Merge(context.Background(), MergeOptions{Path: path})
	fails(t, err, unix.EIO, path+": invalid store, its changes are lost: input/output error")
	_, err = Diff(path)
	fails(t, err, ErrInvalid, path+": invalid store, its changes are lost: input/output error")
	if info, err := Inspect(path); err != nil || info.Valid || info.Label == nil {
		t.Errorf("%+v, error %v", info, err)
	}
}

// Contiguous chunks of the base can be scattered in the store.
func TestMergeScatteredChunks(t *testing.T) {
	for _, records := range [][]snapshot.Record{
		{{Old: 3, New: 2}, {Old: 4, New: 4}, {Old: 5, New: 3}},
		{{Old: 3, New: 2}, {Old: 5, New: 3}, {Old: 4, New: 4}},
	} {
		dir := directory(t)
		base := newBase(t, dir, 1<<20)
		path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		l := layoutOf(t, 4096)
		log, err := snapshot.NewLog(l, snapshot.State{}, make([]byte, 4096), 4096)
		if err != nil {
			t.Fatal(err)
		}
		want := content(t, base)
		for i, e := range records {
			data := randomBytes(newRandom(uint64(i)), 4096)
			write(t, f, data, l.Offset(e.New))
			copy(want[l.Offset(e.Old):], data)
			addRecord(t, f, log, e)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Merge(context.Background(), MergeOptions{Path: path}); err != nil {
			t.Fatal(err)
		}
		same(t, content(t, base), want)
	}
}

// A base of another size is another base.
func TestMergeIntoOtherSize(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	if err := os.Truncate(base, 1<<20+512); err != nil {
		t.Fatal(err)
	}
	_, err := Merge(context.Background(), MergeOptions{Path: path, Base: base})
	fails(t, err, unix.EINVAL, base+" has 1049088 bytes, the origin of "+path+" has 1048576: invalid argument")
}

// A frozen store is merged only after Thaw.
func TestFrozenStore(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	want := change(t, path, base, 10, 1)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := content(t, path)[:snapshot.HeaderBlock]
	label, err := snapshot.ParseLabel(block)
	if err != nil {
		t.Fatal(err)
	}
	label.Frozen = true
	if err := label.Put(block); err != nil {
		t.Fatal(err)
	}
	write(t, f, block, 0)
	_, err = Merge(context.Background(), MergeOptions{Path: path})
	fails(t, err, unix.EPERM, path+": frozen, because other stores need it: operation not permitted")
	if _, err := Thaw(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(context.Background(), MergeOptions{Path: path}); err != nil {
		t.Fatal(err)
	}
	same(t, content(t, base), want)
}

// A store over an image that is checked against a hash tree is merged only by force, whether the
// store was made for it or was used over it later.
func TestMergeIntoVerity(t *testing.T) {
	for _, later := range []bool{false, true} {
		dir := directory(t)
		base := newBase(t, dir, 1<<20)
		path := filepath.Join(dir, "store")
		if later {
			create(t, CreateOptions{Path: path, Origin: base, ChunkSize: 4096})
		}
		line, err := Table(TableOptions{Origin: base, Path: path, ChunkSize: 4096, Over: "/dev/mapper/base", OverBytes: 1 << 19})
		if want := "0 1024 snapshot /dev/mapper/base " + path + " P 8\n"; err != nil || line != want {
			t.Fatalf("%q, error %v, want %q", line, err, want)
		}
		before := content(t, base)
		want := change(t, path, base, 10, 1)
		_, err = Merge(context.Background(), MergeOptions{Path: path})
		fails(t, err, unix.EPERM, path+": "+ErrVerity.Error())
		same(t, content(t, base), before)
		if _, err := Merge(context.Background(), MergeOptions{Path: path, Force: true}); err != nil {
			t.Fatal(err)
		}
		same(t, content(t, base), want)
	}
}

// The caller can refuse a base.
func TestMergeAsksAboutBase(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	before := content(t, base)
	want := change(t, path, base, 10, 1)
	asked := ""
	o := MergeOptions{Path: path, Verity: func(image *os.File) error {
		asked = image.Name()
		return ErrVerity
	}}
	_, err := Merge(context.Background(), o)
	fails(t, err, unix.EPERM, base+": "+ErrVerity.Error())
	if asked != base {
		t.Errorf("asked about %q", asked)
	}
	same(t, content(t, base), before)
	o.Force = true
	if _, err := Merge(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	same(t, content(t, base), want)
}

// A damaged label can say that the store is frozen. Thaw removes it.
func TestThawDamagedLabel(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	want := change(t, path, base, 10, 1)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, []byte{1}, 560)
	if _, err := Merge(context.Background(), MergeOptions{Path: path, Base: base}); !errors.Is(err, snapshot.ErrLabel) {
		t.Errorf("error %v", err)
	}
	if info, err := Inspect(path); err != nil || info.Chunks != 10 || info.Label != nil {
		t.Errorf("%+v, error %v", info, err)
	}
	if _, err := Thaw(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Thaw(base); err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(context.Background(), MergeOptions{Path: path, Base: base}); err != nil {
		t.Fatal(err)
	}
	same(t, content(t, base), want)
}

// If a store cannot be made, its base is not marked.
func TestCreateUndoesMark(t *testing.T) {
	dir := directory(t)
	deep := dir
	for range 13 { // the path is too long for a label
		deep = filepath.Join(deep, strings.Repeat("d", 250))
	}
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	base := newBase(t, deep, 1<<20)
	path := filepath.Join(dir, "store")
	if err := Create(CreateOptions{Path: path, Origin: base}); !errors.Is(err, snapshot.ErrLabel) {
		t.Fatal(err)
	}
	if removed, err := Thaw(base); err != nil || len(removed) != 0 {
		t.Errorf("%v need the base, error %v", removed, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

// A file that cannot be read may be a store.
func TestUnreadableFileMayBeStore(t *testing.T) {
	path := filepath.Join(directory(t), "file")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &backing.Backing{File: f, Path: path}
	for name, err := range map[string]error{
		"thaw":            unfreeze(f),
		"origin":          refuseStore(b),
		"base of a merge": (&store{}).checkBase(b, true),
	} {
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: %v, want EBADF", name, err)
		}
	}
}
