package gpt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// script describes three partitions to sfdisk, not in the order of their starts.
const script = `label: gpt
start=4MiB, size=1MiB, type=2c7357ed-ebd2-46d9-aec1-23d437ec2bf5, uuid=01234567-89ab-cdef-0123-456789abcdef, name="tree"
start=1MiB, size=2MiB, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid=fedcba98-7654-3210-fedc-ba9876543210, name="dätä", attrs="GUID:63"
start=6MiB, type=41092b05-9fc8-4523-994f-2def0408b176
`

// sfdiskImage makes an image of 8 MiB with the script.
func sfdiskImage(t testing.TB) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image")
	err := os.WriteFile(path, make([]byte, 8<<20), 0o600)
	if err == nil {
		cmd := exec.Command("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path)
		cmd.Stdin = strings.NewReader(script)
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("sfdisk: %w: %s", err, out)
		}
	}
	if err == nil {
		content, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

// needSfdisk skips a test without sfdisk.
func needSfdisk(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed")
	}
}

// printed are the partitions that sfdisk prints, in the order of their starts.
func printed(t *testing.T, path string) (list []string) {
	t.Helper()
	out, err := exec.Command("sfdisk", "--json", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		PartitionTable struct {
			SectorSize uint64
			Partitions []struct {
				Start, Size             uint64
				Type, UUID, Name, Attrs string
			}
		}
	}
	if err := json.Unmarshal(out, &object); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 0, 2} {
		p, sector := object.PartitionTable.Partitions[i], object.PartitionTable.SectorSize
		list = append(list, fmt.Sprintf("%s %s %d %d %s %v", strings.ToLower(p.Type), strings.ToLower(p.UUID), p.Start*sector, p.Size*sector, p.Name, p.Attrs != ""))
	}
	return list
}

// withSectors returns an image of sfdisk with the same partitions for sectors of another size.
func withSectors(content []byte, size int) []byte {
	image, factor := bytes.Clone(content), uint64(size/512)
	clear(image[atHeader : 1<<20])
	copy(image[size:], content[atHeader:][:512])
	copy(image[2*size:], content[atEntries:][:128*entrySize])
	divide := func(b []byte) { binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)/factor) }
	h := image[size:]
	divide(h[40:])
	divide(h[48:])
	for n := range 3 {
		e := image[2*size+n*entrySize:]
		binary.LittleEndian.PutUint64(e[40:], (binary.LittleEndian.Uint64(e[40:])+1)/factor-1)
		divide(e[32:])
	}
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(image[2*size:][:128*entrySize]))
	sealHeader(h)
	return image
}

// The partitions are those that sfdisk has made and prints, for each size of sectors.
func TestRead(t *testing.T) {
	needSfdisk(t)
	path, content := sfdiskImage(t)
	want := printed(t, path)
	for size := 512; size <= 4096; size *= 2 {
		all, err := Read(bytes.NewReader(withSectors(content, size)), uint64(len(content)))
		var got []string
		for _, p := range all {
			got = append(got, fmt.Sprintf("%s %s %d %d %s %v", p.Type, p.ID, p.Start, p.Size, p.Name, p.Attributes == 1<<63))
		}
		if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("sectors of %d bytes: %v, %q, sfdisk has %q", size, err, got, want)
		}
	}
}

// Places of fields in an image with sectors of 512 bytes.
const (
	atHeader  = 512
	atEntries = 1024
)

// seal makes both checksums right again.
func seal(image []byte) {
	h := image[atHeader:]
	if first, n := binary.LittleEndian.Uint64(h[72:])*512, uint64(binary.LittleEndian.Uint32(h[80:]))*entrySize; n <= 128<<10 && first <= 64<<10 {
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(image[first:][:n]))
	}
	sealHeader(h)
}

func sealHeader(h []byte) {
	clear(h[16:20])
	length := min(binary.LittleEndian.Uint32(h[12:]), 512)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:length]))
}

// hostile has changes to an image of sfdisk, whose partitions are 1: 8192 to 10239, 2: 2048 to
// 6143, 3: from 12288. Checksums are made right again behind those without "checksum".
var hostile = []struct {
	name   string
	change func(image []byte)
	want   string
}{
	{"signature", func(b []byte) { b[atHeader] = 'e' }, ErrNoTable.Error()},
	{"no protective MBR", func(b []byte) { b[446+4] = 0x83 }, ErrNoTable.Error()},
	{"no boot signature", func(b []byte) { b[511] = 0 }, ErrNoTable.Error()},
	{"MBR from elsewhere", func(b []byte) { b[446+8] = 2 }, ErrNoTable.Error()},
	{"checksum of the header", func(b []byte) { b[atHeader+16] ^= 1 }, "wrong checksum of the header"},
	{"checksum of the entries", func(b []byte) { b[atEntries+130] ^= 1 }, "wrong checksum of the entries"},
	{"short header", put32(12, 91), "header of 91 bytes"},
	{"long header", put32(12, 513), "header of 513 bytes"},
	{"longest header", put32(12, 0xffffffff), "header of 4294967295 bytes"},
	{"header of another sector", put64(24, 2), "header for sector 2 in sector 1"},
	{"no usable sectors", put64(48, 33), "usable sectors from 2048 to 33"},
	{"usable sectors behind the end", put64(48, 16384), "usable sectors from 2048 to 16384 of 16384"},
	{"usable sectors overflow", put64(48, 1<<63), "usable sectors"},
	{"entries in the header", put64(72, 1), "entries in sectors from 1"},
	{"entries behind the first usable sector", put64(72, 2017), "entries in sectors from 2017"},
	{"entries overflow", put64(72, 1<<63), "entries in sectors from"},
	{"entries of no size", put32(84, 0), "entries of 0 bytes"},
	{"entries of another size", put32(84, 256), "entries of 256 bytes"},
	{"many entries", put32(80, 1025), "1025 entries"},
	{"most entries", put32(80, 0xffffffff), "4294967295 entries"},
	{"partition before the first usable sector", entry(1, 2047, 6143), "partition 2 from sector 2047"},
	{"partition behind the last usable sector", entry(2, 12288, 16383), "partition 3 from sector 12288 to 16383"},
	{"partition that ends before its start", entry(1, 3000, 2999), "partition 2 from sector 3000 to 2999"},
	{"partition overflows", entry(1, 1<<63, 1<<63|1), "partition 2"},
	{"partitions overlap by a sector", entry(1, 2048, 8192), "overlap"},
	{"partition in another", entry(2, 3000, 3000), "overlap"},
	{"the same partition twice", entry(2, 2048, 6143), "overlap"},
}

func put32(at int, v uint32) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint32(b[atHeader+at:], v) }
}

func put64(at int, v uint64) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint64(b[atHeader+at:], v) }
}

// entry changes the sectors of an entry, the first of which has the number 0.
func entry(number int, first, last uint64) func([]byte) {
	return func(b []byte) {
		e := b[atEntries+number*entrySize:]
		binary.LittleEndian.PutUint64(e[32:], first)
		binary.LittleEndian.PutUint64(e[40:], last)
	}
}

// A table with a contradiction is refused, and no partition of it is returned.
func TestReadHostile(t *testing.T) {
	needSfdisk(t)
	_, content := sfdiskImage(t)
	for _, h := range hostile {
		image := bytes.Clone(content)
		h.change(image)
		if !strings.HasPrefix(h.name, "checksum") {
			seal(image)
		}
		all, err := Read(bytes.NewReader(image), uint64(len(image)))
		if err == nil || !strings.Contains(err.Error(), h.want) || all != nil {
			t.Errorf("%s: %v, %v, want %s", h.name, all, err, h.want)
		}
		if h.want != ErrNoTable.Error() && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v is not EINVAL", h.name, err)
		}
	}
	for _, size := range []int{0, 511, 1023, 1024, 4096} {
		if all, err := Read(bytes.NewReader(content[:size]), uint64(size)); err == nil {
			t.Errorf("%d bytes of the image: %v", size, all)
		}
		if all, err := Read(bytes.NewReader(content[:size]), uint64(len(content))); err == nil {
			t.Errorf("%d bytes of the image, which was larger before: %v", size, all)
		}
	}
}

// limitedReader fails the test if it is asked for too much.
type limitedReader struct {
	*bytes.Reader
	t     testing.TB
	bytes int
}

func (r *limitedReader) ReadAt(b []byte, at int64) (int, error) {
	if r.bytes += len(b); r.bytes > maxEntries*entrySize+2*(512+1024+2048+4096) {
		r.t.Fatalf("read of %d bytes", r.bytes)
	}
	return r.Reader.ReadAt(b, at)
}

// Whatever the bytes are, partitions lie within the image and do not overlap, and no more is read
// than the largest table.
func FuzzRead(f *testing.F) {
	needSfdisk(f)
	_, content := sfdiskImage(f)
	content = content[:64<<10]
	f.Add(content)
	for _, h := range hostile {
		image := bytes.Clone(content)
		h.change(image)
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		image := make([]byte, max(len(b), 256<<10))
		copy(image, b)
		seal(image)
		const size = 8 << 20
		all, err := Read(&limitedReader{Reader: bytes.NewReader(image), t: t}, size)
		if err != nil && all != nil {
			t.Errorf("partitions beside %v", err)
		}
		end := uint64(0)
		for _, p := range all {
			if p.Start < end || p.Size == 0 || p.Size > size || p.Start > size-p.Size {
				t.Errorf("partition %+v behind %d", p, end)
			}
			end = p.Start + p.Size
		}
	})
}
