package verityfile

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const uuid = "00112233-4455-6677-8899-aabbccddeeff"

// superblock returns parameters with 1 KiB blocks.
func superblock(t testing.TB) verity.Superblock {
	t.Helper()
	u, err := verity.ParseUUID(uuid)
	if err != nil {
		t.Fatal(err)
	}
	return verity.Superblock{UUID: u, Params: verity.Params{Algorithm: "sha256", DataBlockSize: 1024, HashBlockSize: 1024, Salt: []byte{1, 2, 3}}}
}

// newImage makes a file of size bytes, and returns its path and contents.
func newImage(t testing.TB, size int) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * i >> 5)
	}
	write(t, path, data)
	return path, data
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// format formats an image that must be accepted.
func format(t testing.TB, o FormatOptions) *Formatted {
	t.Helper()
	r, err := Format(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verify returns the wrong blocks.
func verify(t testing.TB, where Location, root []byte) (all []string, err error) {
	t.Helper()
	err = Verify(t.Context(), where, root, func(b verity.Bad) bool {
		all = append(all, b.String())
		return true
	})
	return all, err
}

// expectGood fails the test unless the image verifies.
func expectGood(t testing.TB, where Location, root []byte) {
	t.Helper()
	if bad, err := verify(t, where, root); err != nil || bad != nil {
		t.Errorf("%+v: %v, %v", where, bad, err)
	}
}

func offset(n uint64) *uint64 { return &n }

// places returns every way to place the tree of an image of 300 blocks.
func places(image string) map[string]Location {
	other := filepath.Join(filepath.Dir(image), "hash")
	return map[string]Location{
		"appended":           {Image: image},
		"appended further":   {Image: image, HashOffset: offset(300*1024 + 5*512)},
		"in a file":          {Image: image, HashFile: other},
		"behind in a file":   {Image: image, HashFile: other, HashOffset: offset(1 << 20)},
		"in the image again": {Image: image, HashFile: image, HashOffset: offset(300 * 1024)},
	}
}

// Format keeps the data, and Verify finds what Format has written, and damage.
func TestFormatAndVerify(t *testing.T) {
	for _, name := range []string{"appended", "appended further", "in a file", "behind in a file", "in the image again"} {
		image, data := newImage(t, 300*1024)
		where := places(image)[name]
		r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
		if !bytes.Equal(read(t, image)[:len(data)], data) {
			t.Errorf("%s: the data has changed", name)
		}
		if r.Appended != !strings.HasSuffix(name, "a file") || r.Superblock.DataBlocks != 300 || r.Tree.HashBlocks() != 11 {
			t.Errorf("%s: %+v", name, r)
		}
		expectGood(t, where, r.Root)
		changed := read(t, image)
		changed[5000] ^= 1
		write(t, image, changed)
		bad, err := verify(t, where, r.Root)
		if err != nil || fmt.Sprint(bad) != "[data block 4 at byte 4096 does not match the tree]" {
			t.Errorf("%s: %v, %v", name, bad, err)
		}
	}
}

// One block needs no tree. The file ends where a tree would begin, as
// veritysetup says it.
func TestFormatOneBlock(t *testing.T) {
	image, _ := newImage(t, 1024)
	other := image + ".hash"
	for _, where := range []Location{{Image: image, HashFile: other}, {Image: image}} {
		r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
		expectGood(t, where, r.Root)
	}
	if a, b := len(read(t, other)), len(read(t, image)); a != 1024 || b != 2048 {
		t.Errorf("sizes %d and %d", a, b)
	}
}

// The files are those of veritysetup, which accepts them.
func TestFormatIsVeritysetup(t *testing.T) {
	if _, err := exec.LookPath("veritysetup"); err != nil {
		ublktest.MachineLacks(t, "veritysetup")
	}
	for _, name := range []string{"appended", "in a file", "behind in a file", "in the image again"} {
		image, data := newImage(t, 300*1024)
		theirs := filepath.Join(filepath.Dir(image), "theirs")
		write(t, theirs, data)
		where := places(image)[name]
		r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
		hash, theirHash, at := where.HashFile, theirs, uint64(0)
		switch {
		case r.Appended:
			hash, at = image, 300*1024
		default:
			theirHash += ".hash"
		}
		if where.HashOffset != nil {
			at = *where.HashOffset
		}
		run := func(action string, args ...string) {
			args = append([]string{action, fmt.Sprint("--hash-offset=", at)}, args...)
			if out, err := exec.Command("veritysetup", args...).CombinedOutput(); err != nil {
				t.Fatalf("%s: veritysetup %q: %v: %s", name, args, err, out)
			}
		}
		run("format", "--uuid="+uuid, "--salt=010203", "--data-block-size=1024", "--hash-block-size=1024", "--data-blocks=300", theirs, theirHash)
		if !bytes.Equal(read(t, hash), read(t, theirHash)) {
			t.Errorf("%s: the files differ", name)
		}
		run("verify", image, hash, hex.EncodeToString(r.Root))
		expectGood(t, Location{Image: theirs, HashFile: theirHash, HashOffset: &at}, r.Root)
	}
}

// Nothing is overwritten without Force, and with it only the place of the tree.
func TestFormatForce(t *testing.T) {
	image, data := newImage(t, 300*1024)
	o := FormatOptions{Location: Location{Image: image, HashOffset: offset(200 * 1024)}, Superblock: superblock(t)}
	o.Superblock.DataBlocks = 200
	expectRefused(t, o, unix.EEXIST, "has data at byte 204800", "{force} overwrites it from byte 204800 to 214016")
	o.Force = true
	r := format(t, o)
	expectGood(t, o.Location, r.Root)
	if got := read(t, image); !bytes.Equal(got[:204800], data[:204800]) || !bytes.Equal(got[214016:], data[214016:]) {
		t.Error("other data has changed")
	}
}

// An image with a tree gets no second one by mistake. The hint is right.
func TestFormatTwice(t *testing.T) {
	image, _ := newImage(t, 300*1024)
	o := FormatOptions{Location: Location{Image: image}, Superblock: superblock(t)}
	first := format(t, o)
	before := read(t, image)
	expectRefused(t, o, unix.EEXIST, "300 data blocks of 1024 bytes", "{force} --data-blocks=300 --hash-offset=307200 replaces the tree")
	o.Force, o.Superblock.DataBlocks, o.HashOffset = true, 300, offset(307200)
	if again := format(t, o); !bytes.Equal(again.Root, first.Root) || !bytes.Equal(read(t, image), before) {
		t.Error("the tree differs")
	}
}

// expectRefused fails the test unless Format refuses with an error and a hint, and
// changes nothing.
func expectRefused(t testing.TB, o FormatOptions, want error, text, advice string) {
	t.Helper()
	content := func() (b []byte) {
		if info, err := os.Stat(o.Image); err == nil && info.Mode().IsRegular() {
			b = read(t, o.Image)
		}
		return b
	}
	before := content()
	_, err := Format(t.Context(), o)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%+v: %v, want %v with %q", o, err, want, text)
	}
	var h *hint.Error
	if errors.As(err, &h); advice != "" && (h == nil || h.Hint != advice) {
		t.Errorf("%+v: hint %+v, want %q", o, h, advice)
	}
	if !bytes.Equal(before, content()) {
		t.Errorf("%+v: refused, but the image has changed", o)
	}
}

func TestFormatRefuses(t *testing.T) {
	image, _ := newImage(t, 300*1024+100)
	dir := filepath.Dir(image)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	write(t, empty, nil)
	blocks := func(n uint64) func(*FormatOptions) { return func(o *FormatOptions) { o.Superblock.DataBlocks = n } }
	for _, tt := range []struct {
		change       func(*FormatOptions)
		want         error
		text, advice string
	}{
		{func(o *FormatOptions) { o.Image = dir + "/none" }, unix.ENOENT, "none", ""},
		{func(o *FormatOptions) { o.Image = dir }, unix.EISDIR, dir, ""},
		{func(o *FormatOptions) { o.Image = fifo }, unix.EINVAL, "neither a file nor a disk", ""},
		{func(o *FormatOptions) { o.Image = "/dev/null" }, unix.EINVAL, "neither a file nor a disk", ""},
		{func(o *FormatOptions) { o.Image = empty }, unix.EINVAL, "has 0 bytes, less than a block of 1024", ""},
		{func(o *FormatOptions) {}, unix.EINVAL, "not a multiple of 1024", "--data-blocks=300 leaves the last 100 bytes out, which nothing protects then"},
		{blocks(301), unix.EINVAL, "less than 301 blocks of 1024", ""},
		{blocks(1 << 60), unix.EINVAL, "less than 1152921504606846976 blocks", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashOffset = offset(299 * 1024) }, unix.EINVAL, "within the data of 307200 bytes", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashOffset = offset(300*1024 + 100) }, unix.EINVAL, "not a multiple of 512", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashOffset = offset(300 * 1024) }, unix.EEXIST, "has data at byte 307200", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashOffset = offset(1<<63 - 512) }, verity.ErrTooLarge, "2^63", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashFile = dir }, unix.EISDIR, dir, ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashFile = dir + "/no/file" }, unix.ENOENT, dir + "/no/file", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.HashFile = image; o.HashOffset = offset(0) }, unix.EINVAL, "within the data", ""},
		{func(o *FormatOptions) { blocks(300)(o); o.Superblock.Algorithm = "md5" }, verity.ErrUnsupported, `hash "md5"`, ""},
	} {
		o := FormatOptions{Location: Location{Image: image}, Superblock: superblock(t)}
		tt.change(&o)
		expectRefused(t, o, tt.want, tt.text, tt.advice)
	}
	// The last incomplete block stays where it is.
	o := FormatOptions{Location: Location{Image: image}, Superblock: superblock(t)}
	o.Superblock.DataBlocks = 300
	r := format(t, o)
	expectGood(t, Location{Image: image, HashOffset: offset(300*1024 + 512)}, r.Root)
}

// An interrupted or failing Format leaves nothing behind.
func TestFormatInterrupted(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for name, place := range places("") {
		image, data := newImage(t, 300*1024)
		where := places(image)[name]
		if _, err := Format(ctx, FormatOptions{Location: where, Superblock: superblock(t)}); !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(read(t, image), data) {
			t.Errorf("%s: the image has changed", name)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(image), "hash")); place.HashFile != "" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the hash file is there: %v", name, err)
		}
		r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
		if err := Verify(ctx, where, r.Root, func(verity.Bad) bool { return true }); !errors.Is(err, cause) {
			t.Errorf("%s: verify: %v", name, err)
		}
	}
}

// If the file with the root hash cannot be written, or is another file of Format, nothing changes.
func TestFormatRootFileFails(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name := range places("") {
		for root, want := range map[string]error{"none/root": unix.ENOENT, ".": unix.EISDIR, "image": unix.EINVAL, "hash": unix.EINVAL, "/dev/full": unix.ENOSPC, fifo: unix.ENXIO} {
			image, data := newImage(t, 300*1024)
			dir := filepath.Dir(image)
			where := places(image)[name]
			if root == "hash" && filepath.Base(where.HashFile) != root {
				continue
			}
			o := FormatOptions{Location: where, Superblock: superblock(t), RootFile: root}
			if !filepath.IsAbs(root) {
				o.RootFile = filepath.Join(dir, root)
			}
			if _, err := Format(t.Context(), o); !errors.Is(err, want) {
				t.Errorf("%s, root hash in %s: error %v", name, root, err)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || !bytes.Equal(read(t, image), data) {
				t.Errorf("%s, root hash in %s: left are %v, error %v", name, root, files, err)
			}
		}
	}
}

// A file with a root hash keeps it, and a new one is removed, if something else fails.
func TestFormatKeepsRootFile(t *testing.T) {
	for _, old := range []string{"", "old"} {
		image, _ := newImage(t, 100)
		root := filepath.Join(filepath.Dir(image), "root")
		if old != "" {
			write(t, root, []byte(old))
		}
		o := FormatOptions{Location: Location{Image: image}, Superblock: superblock(t), RootFile: root}
		if _, err := Format(t.Context(), o); !errors.Is(err, unix.EINVAL) {
			t.Errorf("error %v", err)
		}
		if text, err := os.ReadFile(root); string(text) != old || errors.Is(err, fs.ErrNotExist) != (old == "") {
			t.Errorf("%q, error %v, want %q", text, err, old)
		}
	}
}

// The name of a new hash file is written to disk, here in a directory in which that fails.
func TestFormatSyncsDirectory(t *testing.T) {
	ublktest.ObeyModes(t)
	image, _ := newImage(t, 300*1024)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o333); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // so that it can be removed
	o := FormatOptions{Location: Location{Image: image, HashFile: filepath.Join(dir, "hash")}, Superblock: superblock(t)}
	if _, err := Format(t.Context(), o); !errors.Is(err, unix.EACCES) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(o.HashFile); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the hash file is left: %v", err)
	}
}

// A file that has taken the place of the new hash file meanwhile stays.
func TestFormatKeepsAnotherFile(t *testing.T) {
	image, _ := newImage(t, 300*1024)
	hash := filepath.Join(filepath.Dir(image), "hash")
	f := formatting{FormatOptions: FormatOptions{Location: Location{Image: image, HashFile: hash}, Superblock: superblock(t)}}
	if err := errors.Join(f.open(), f.layOut(), os.Remove(hash)); err != nil {
		t.Fatal(err)
	}
	write(t, hash, []byte("another"))
	if err := f.close(unix.ENOSPC); !errors.Is(err, unix.ENOSPC) || string(read(t, hash)) != "another" {
		t.Errorf("%v, the file has %q", err, read(t, hash))
	}
}

// A write that fails in the middle, here by the limit of a file's size, is taken
// back.
func TestFormatTakesBack(t *testing.T) {
	image, data := newImage(t, 300*1024)
	f := formatting{FormatOptions: FormatOptions{Location: Location{Image: image}, Superblock: superblock(t)}}
	if err := errors.Join(f.open(), f.layOut()); err != nil {
		t.Fatal(err)
	}
	if err := f.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(read(t, image)) == len(data) {
		t.Fatal("nothing was written")
	}
	if err := f.close(unix.ENOSPC); !errors.Is(err, unix.ENOSPC) || !bytes.Equal(read(t, image), data) {
		t.Errorf("%v, the image has %d bytes", err, len(read(t, image)))
	}
}

// Verify refuses superblocks that contradict the files, before it reads much.
func TestVerifyRefuses(t *testing.T) {
	image, data := newImage(t, 300*1024)
	other := filepath.Join(filepath.Dir(image), "hash")
	where := Location{Image: image, HashFile: other}
	r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
	whole := read(t, other)
	for _, tt := range []struct {
		change func()
		where  Location
		want   error
		text   string
	}{
		{func() { write(t, image, data[:len(data)-1]) }, where, unix.EINVAL, "less than its data of 307200"},
		{func() { write(t, other, whole[:len(whole)-1]) }, where, unix.EINVAL, "but the tree ends at 12288"},
		{func() { write(t, other, whole[:511]) }, where, verity.ErrNoSuperblock, "at byte 0"},
		{func() { write(t, other, nil) }, where, verity.ErrNoSuperblock, "at byte 0"},
		{func() {}, Location{Image: image, HashFile: other, HashOffset: offset(512)}, verity.ErrNoSuperblock, "at byte 512"},
		{func() {}, Location{Image: image, HashFile: other, HashOffset: offset(100)}, unix.EINVAL, "not a multiple of 512"},
		{func() {}, Location{Image: image}, verity.ErrNoSuperblock, "behind its data"},
		{func() { write(t, image, append(bytes.Clone(whole), data...)) }, Location{Image: image, HashOffset: offset(0)}, unix.EINVAL, "within the data of 307200"},
		{func() {}, Location{Image: image + "none"}, unix.ENOENT, "imagenone"},
		{func() {}, Location{Image: image, HashFile: other + "none"}, unix.ENOENT, "hashnone"},
	} {
		write(t, image, data)
		write(t, other, whole)
		tt.change()
		if bad, err := verify(t, tt.where, r.Root); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || bad != nil {
			t.Errorf("%+v: %v, %v; want %v with %q", tt.where, bad, err, tt.want, tt.text)
		}
	}
}

func TestReadRoot(t *testing.T) {
	digits := strings.Repeat("0a", 32)
	file := filepath.Join(t.TempDir(), "root")
	for text, want := range map[string]string{digits: "", digits + "\n": "", " " + digits + "\r\n": "", "0a": "not 40, 64 or 128", strings.Repeat(" ", 300): "longer than 256"} {
		write(t, file, []byte(text))
		root, err := ReadRoot(file)
		if want == "" && (err != nil || hex.EncodeToString(root) != digits) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %x, %v, want %q", text, root, err, want)
		}
	}
	if root, err := ReadRoot(strings.ToUpper(digits)); err != nil || hex.EncodeToString(root) != digits {
		t.Errorf("%x, %v", root, err)
	}
	if _, err := ReadRoot(digits[1:]); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not 40, 64 or 128") {
		t.Errorf("no file: %v", err)
	}
}

// A hash file that cannot become as long as it must be is an error.
func TestFormatCannotGrow(t *testing.T) {
	image, _ := newImage(t, 1024)
	fd, err := unix.MemfdCreate("hash", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, verity.SuperblockSize); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	o := FormatOptions{Location: Location{Image: image, HashFile: fmt.Sprint("/proc/self/fd/", fd)}, Superblock: superblock(t), Force: true}
	expectRefused(t, o, unix.EPERM, "truncate", "")
}

// A new hash file has the mode that the umask allows.
func TestFormatMode(t *testing.T) {
	image, _ := newImage(t, 1024)
	other, like := image+".hash", image+".like"
	format(t, FormatOptions{Location: Location{Image: image, HashFile: other}, Superblock: superblock(t)})
	if err := os.WriteFile(like, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	a, errA := os.Stat(other)
	b, errB := os.Stat(like)
	if err := errors.Join(errA, errB); err != nil || a.Mode() != b.Mode() {
		t.Errorf("mode %v, want that of %v, %v", a, b, err)
	}
}

// A disk is overwritten only with Force, and only within its size.
func TestFormatDisk(t *testing.T) {
	image, _ := newImage(t, 300*1024)
	for _, tt := range []struct {
		size  uint64
		force bool
		want  error
		text  string
	}{
		{1 << 20, false, unix.EEXIST, "is a disk"},
		{1 << 20, true, nil, ""},
		{12 << 10, true, nil, ""},
		{12<<10 - 1, true, unix.ENOSPC, "end at 12288"},
		{12<<10 - 1, false, unix.ENOSPC, "end at 12288"},
	} {
		f := formatting{FormatOptions: FormatOptions{
			Location:   Location{Image: image, HashFile: filepath.Join(t.TempDir(), "disk")},
			Superblock: superblock(t), Force: tt.force,
		}}
		if err := f.open(); err != nil {
			t.Fatal(err)
		}
		f.hash.isDisk, f.hash.size = true, tt.size
		err := f.layOut()
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v: %v", tt, err)
		}
		if err := f.close(nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Neither success nor failure leaves a file open.
func TestNoDescriptorStaysOpen(t *testing.T) {
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	image, _ := newImage(t, 300*1024)
	none := filepath.Join(filepath.Dir(image), "none")
	before := open()
	for name := range places("") {
		image, _ := newImage(t, 300*1024)
		where := places(image)[name]
		r := format(t, FormatOptions{Location: where, Superblock: superblock(t)})
		expectGood(t, where, r.Root)
	}
	refused := FormatOptions{Location: Location{Image: image, HashFile: none, HashOffset: offset(1)}, Superblock: superblock(t)}
	expectRefused(t, refused, unix.EINVAL, "", "")
	for _, where := range []Location{{Image: none}, {Image: image, HashFile: none}, {Image: image, HashFile: filepath.Dir(image)}} {
		if _, err := verify(t, where, nil); err == nil {
			t.Errorf("%+v: no error", where)
		}
	}
	if _, err := ReadRoot(image); err == nil {
		t.Error("an image is no root hash")
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
