package verityfile

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/gpt"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// pair is data with its tree, for partitions.
type pair struct {
	data, tree []byte
	root       []byte
}

// newPair makes data of 300 blocks of 1 KiB that begins with a text, and its tree.
func newPair(t *testing.T, text string) *pair {
	t.Helper()
	path, data := newImage(t, 300*1024)
	copy(data, text)
	write(t, path, data)
	hash := filepath.Join(filepath.Dir(path), "hash")
	f := format(t, FormatOptions{Location: Location{Image: path, HashFile: hash}, Superblock: superblock(t)})
	return &pair{data, read(t, hash), f.Root}
}

// partition is one that a test asks for.
type partition struct {
	kind    string // type
	id      []byte // UUID; nil for any
	more    string // further fields for sfdisk
	content []byte
	size    int // in bytes; 0 is that of the content, in whole MiB
}

// dataOf and treeOf are the partitions of a pair, with the UUIDs of its root hash.
func dataOf(p *pair, d int) partition {
	return partition{kind: designators[runtime.GOARCH][d].data, id: p.root[:16], content: p.data}
}

func treeOf(p *pair, d int) partition {
	return partition{kind: designators[runtime.GOARCH][d].tree, id: p.root[16:], content: p.tree}
}

// signatureOf is the partition with a root hash and its signature.
func signatureOf(root, signature []byte, d int) partition {
	text := fmt.Sprintf(`{"rootHash":"%x","certificateFingerprint":"00","signature":%q}`, root, base64.StdEncoding.EncodeToString(signature))
	return partition{kind: designators[runtime.GOARCH][d].signature, content: []byte(text)}
}

// partitioned makes disk.raw with partitions, and returns its directory.
func partitioned(t *testing.T, list ...partition) (dir string) {
	t.Helper()
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const unit = 1 << 20
	script, content := "label: gpt\n", make([]byte, unit)
	for _, p := range list {
		size := p.size
		if size == 0 {
			size = max(unit, (len(p.content)+unit-1)/unit*unit)
		}
		script += fmt.Sprintf("start=%d, size=%d, type=%s", len(content)/512, size/512, p.kind)
		if p.id != nil {
			script += ", uuid=" + textOf(p.id)
		}
		script += p.more + "\n"
		content = append(append(content, p.content...), make([]byte, (size+unit-1)/unit*unit-len(p.content))...)
	}
	path := filepath.Join(dir, "disk.raw")
	write(t, path, append(content, make([]byte, unit)...))
	cmd := exec.Command("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s\n%s", err, out, script)
	}
	return dir
}

// textOf returns the text of a UUID.
func textOf(id []byte) string {
	s := hex.EncodeToString(id)
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// The types of partitions are those that util-linux knows by name.
func TestDesignators(t *testing.T) {
	out, err := exec.Command("sfdisk", "--label", "gpt", "--list-types").Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("sfdisk is not installed")
	}
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if kind, name, found := strings.Cut(strings.TrimSpace(line), "  "); found {
			types[name] = strings.ToLower(kind)
		}
	}
	names := map[string]string{
		"386": "x86", "amd64": "x86-64", "arm": "ARM", "arm64": "ARM-64", "loong64": "LoongArch-64", "ppc64le": "PPC64LE",
		"riscv64": "RISC-V-64", "s390x": "S390X",
	}
	if len(designators) != len(names) {
		t.Errorf("%d architectures, not %d", len(designators), len(names))
	}
	for arch, name := range names {
		for i, what := range []string{"root", "/usr"} {
			d := designators[arch][i]
			want := [3]string{types[fmt.Sprintf("Linux %s (%s)", what, name)], types[fmt.Sprintf("Linux %s verity (%s)", what, name)], types[fmt.Sprintf("Linux %s verity sign. (%s)", what, name)]}
			if got := [3]string{d.data, d.tree, d.signature}; got != want {
				t.Errorf("%s: %s: %v, want %v", arch, what, got, want)
			}
		}
	}
}

// opens fails the test unless the device of disk.raw has the data and tree of a pair, which begin
// at places in MiB.
func opens(t *testing.T, dir string, where Location, p *pair, data, tree int) *Device {
	t.Helper()
	d, err := openDevice(t, dir, where)
	if err != nil {
		t.Error(err)
		return nil
	}
	path := filepath.Join(dir, "disk.raw")
	want := fmt.Sprintf("data,,,ro,0 2048 linear %s %d;hash,,,ro,0 2048 linear %s %d;"+
		"verified,,,ro,0 600 verity 1 /dev/mapper/data /dev/mapper/hash 1024 1024 300 1 sha256 %x 010203", path, data*2048, path, tree*2048, p.root)
	if d.Table != want || len(d.Files) != 1 || d.Bytes != 300*1024 {
		t.Errorf("table %q, %d files, %d bytes; want %q", d.Table, len(d.Files), d.Bytes, want)
	}
	return d
}

// fails fails the test unless disk.raw is refused.
func fails(t *testing.T, dir string, where Location, errno error, text string) {
	t.Helper()
	if _, err := openDevice(t, dir, where); !errors.Is(err, errno) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %v with %q", err, errno, text)
	}
}

// The pair of partitions is found by its UUIDs, which are the root hash, for the root file system
// before /usr.
func TestOpenPartitions(t *testing.T) {
	a, b := newPair(t, "a"), newPair(t, "b")
	auto := Location{RootHash: "auto"}
	named := func(p *pair) Location { return Location{RootHash: hex.EncodeToString(p.root)} }
	dir := partitioned(t, partition{kind: "U", content: []byte("x")}, treeOf(a, 0), dataOf(a, 0))
	d := opens(t, dir, auto, a, 3, 2)
	if want := strings.Replace(d.Table, "verified,", "base,", 1); d.Concise("base") != want {
		t.Errorf("with another name: %q, want %q", d.Concise("base"), want)
	}
	opens(t, dir, named(a), a, 3, 2)
	fails(t, dir, named(b), verity.ErrNoSuperblock, "behind its data")
	opens(t, partitioned(t, dataOf(b, 1), treeOf(b, 1)), auto, b, 1, 2)
	dir = partitioned(t, dataOf(b, 1), treeOf(b, 1), dataOf(a, 0), treeOf(a, 0))
	opens(t, dir, auto, a, 3, 4)
	opens(t, dir, named(b), b, 1, 2)
	write(t, filepath.Join(dir, "disk.roothash"), []byte(hex.EncodeToString(b.root)))
	opens(t, dir, auto, b, 1, 2)
	// Two versions of the root file system.
	dir = partitioned(t, dataOf(a, 0), treeOf(a, 0), dataOf(b, 0), treeOf(b, 0))
	fails(t, dir, auto, unix.ENOTUNIQ, "several root partitions")
	opens(t, dir, named(b), b, 3, 4)
	// Partitions that do not count.
	unused := dataOf(b, 0)
	for _, more := range []string{`, name="_empty"`, `, attrs="GUID:63"`} {
		unused.more = more
		opens(t, partitioned(t, unused, dataOf(a, 0), treeOf(a, 0)), auto, a, 2, 3)
	}
	// Whoever says where the tree is means the data at the start of the image.
	where := named(a)
	where.HashOffset = offset(2 << 20)
	d, err := openDevice(t, partitioned(t, dataOf(a, 0), treeOf(a, 0)), where)
	if err != nil || !strings.HasPrefix(d.Table, "0 600 verity 1 ") {
		t.Errorf("the offset of the tree is given: %+v, %v", d, err)
	}
	where.RootHash = "auto"
	fails(t, partitioned(t, dataOf(a, 0), treeOf(a, 0)), where, unix.ENODATA, "no root hash")
}

// The UUIDs have only a part of a long root hash, and more than a short one.
func TestOpenPartitionsOtherHashes(t *testing.T) {
	for _, tt := range []struct{ name, want string }{{"sha512", "root hash of 32 bytes"}, {"sha1", "root hash of 32 bytes"}} {
		path, data := newImage(t, 300*1024)
		hash, s := filepath.Join(filepath.Dir(path), "hash"), superblock(t)
		s.Algorithm = tt.name
		f := format(t, FormatOptions{Location: Location{Image: path, HashFile: hash}, Superblock: s})
		p := &pair{data, read(t, hash), f.Root}
		tree := treeOf(p, 0)
		tree.id = f.Root[len(f.Root)-16:]
		dir := partitioned(t, dataOf(p, 0), tree)
		d, err := openDevice(t, dir, Location{RootHash: hex.EncodeToString(f.Root)})
		if err != nil || !strings.HasPrefix(d.Table, "data,,,ro,") || !strings.Contains(d.Table, tt.name) {
			t.Errorf("%s: %+v, %v", tt.name, d, err)
		}
		fails(t, dir, Location{RootHash: "auto"}, verity.ErrInvalid, tt.want)
	}
}

// Two partitions with the same UUID are not taken, and a path does not become a table of the stack.
func TestPartitionsDoubled(t *testing.T) {
	a := newPair(t, "a")
	image, err := openStore(filepath.Join(partitioned(t, dataOf(a, 0)), "disk.raw"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	first := gpt.Partition{ID: gpt.GUID(a.root[:16]), Start: 1 << 20, Size: 1 << 20}
	second, tree := first, gpt.Partition{ID: gpt.GUID(a.root[16:]), Start: 3 << 20, Size: 1 << 20}
	second.Start = 2 << 20
	d := &designators["amd64"][0]
	if _, err := d.match(image, []partitions{{root: a.root}}, []gpt.Partition{first, second}, []gpt.Partition{tree}); !errors.Is(err, unix.ENOTUNIQ) {
		t.Errorf("the same UUID twice: %v", err)
	}
	found, err := d.match(image, []partitions{{root: a.root}}, []gpt.Partition{first}, []gpt.Partition{tree})
	if err != nil || found == nil {
		t.Fatalf("one pair: %v, %v", found, err)
	}
	if below, _ := found.below("/dev/mapper/data"); below != "data,,,ro,0 2048 linear image 2048;hash,,,ro,0 2048 linear image 6144" {
		t.Errorf("tables over a device with the name of one of them: %s", below)
	}
}

// A pair whose UUIDs are not those of its root hash, or which is not for this machine, is not
// taken.
func TestOpenPartitionsOfOthers(t *testing.T) {
	a := newPair(t, "a")
	auto := Location{RootHash: "auto"}
	foreign := "s390x"
	data, tree := dataOf(a, 0), treeOf(a, 0)
	data.kind, tree.kind = designators[foreign][0].data, designators[foreign][0].tree
	fails(t, partitioned(t, data, tree), auto, unix.ENODATA, "no root hash")
	data, tree = dataOf(a, 0), treeOf(a, 0)
	data.id = bytes.Repeat([]byte{7}, 16)
	dir := partitioned(t, data, tree)
	fails(t, dir, auto, verity.ErrMismatch, "does not match the root hash")
	fails(t, dir, Location{RootHash: hex.EncodeToString(a.root)}, verity.ErrNoSuperblock, "behind its data")
	fails(t, partitioned(t, dataOf(a, 0)), auto, unix.ENODATA, "no root hash")
	fails(t, partitioned(t, dataOf(a, 0), treeOf(a, 1)), auto, unix.ENODATA, "no root hash")
}

// Data and tree lie within their partitions.
func TestOpenPartitionsTooSmall(t *testing.T) {
	a := newPair(t, "a")
	auto := Location{RootHash: "auto"}
	// of returns the partitions of the pair without their last bytes.
	of := func(lessData, lessTree int) (data, tree partition) {
		data, tree = dataOf(a, 0), treeOf(a, 0)
		data.size, tree.size = len(a.data)-lessData, len(a.tree)-lessTree
		data.content, tree.content = data.content[:data.size], tree.content[:tree.size]
		return data, tree
	}
	data, tree := of(512, 0)
	fails(t, partitioned(t, data, tree), auto, unix.EINVAL, "the data has 307200 bytes, its partition 306688")
	data, tree = of(0, 512)
	fails(t, partitioned(t, data, tree), auto, unix.EINVAL, fmt.Sprintf("the tree ends at byte %d, its partition at %d", len(a.tree), len(a.tree)-512))
	data, tree = of(0, 0)
	if _, err := openDevice(t, partitioned(t, data, tree), auto); err != nil {
		t.Errorf("partitions without a byte to spare: %v", err)
	}
	tree.content = make([]byte, len(a.tree))
	fails(t, partitioned(t, data, tree), auto, verity.ErrNoSuperblock, "partition")
}

// A damaged partition table is an error, unless the image has its tree behind it.
func TestOpenPartitionsDamaged(t *testing.T) {
	a := newPair(t, "a")
	dir := partitioned(t, dataOf(a, 0), treeOf(a, 0))
	path := filepath.Join(dir, "disk.raw")
	content := read(t, path)
	content[512+16] ^= 1
	write(t, path, content)
	fails(t, dir, Location{RootHash: "auto"}, unix.EINVAL, "wrong checksum of the header")
	root := hex.EncodeToString(a.root)
	fails(t, dir, Location{RootHash: root}, unix.EINVAL, "wrong checksum of the header")
	fails(t, dir, Location{RootHash: root}, verity.ErrNoSuperblock, "behind its data")
	f := format(t, FormatOptions{Location: Location{Image: path}, Superblock: superblock(t)})
	d, err := openDevice(t, dir, Location{RootHash: hex.EncodeToString(f.Root)})
	if err != nil || d.Bytes != uint64(len(content)) {
		t.Errorf("a tree behind the image: %+v, %v", d, err)
	}
}

// An image of systemd-repart is opened by its own signature.
func TestOpenSystemdRepart(t *testing.T) {
	if _, err := exec.LookPath("systemd-repart"); err != nil {
		t.Skip("systemd-repart is not installed")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image, data := newImage(t, 300*4096)
	for name, text := range map[string]string{
		"1.conf": "Type=root\nVerity=data\nCopyBlocks=" + image, "2.conf": "Type=root-verity\nVerity=hash\nSizeMinBytes=1M\nSizeMaxBytes=1M",
		"3.conf": "Type=root-verity-sig\nVerity=signature",
	} {
		write(t, filepath.Join(dir, name), []byte("[Partition]\nVerityMatchKey=x\n"+text+"\n"))
	}
	defer func(old []string) { certificateDirs = old }(certificateDirs)
	certificateDirs = []string{dir}
	openssl(t, dir, "req", "-batch", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", "key", "-out", "signer.crt", "-subj", "/CN=signer", "-days", "1")
	cmd := exec.Command("systemd-repart", "--empty=create", "--size=auto", "--dry-run=no", "--definitions=.", "--private-key=key", "--certificate=signer.crt", "disk.raw")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil && !ublktest.HasOtherUsers() && bytes.Contains(out, []byte("make loopback device")) {
		ublktest.MachineLacks(t, "root: systemd-repart gets no loop device")
	}
	if err != nil {
		t.Fatalf("systemd-repart: %v: %s", err, out)
	}
	d, err := openDevice(t, dir, Location{RootHash: "auto", Signature: "auto"})
	if err != nil || d.Bytes < uint64(len(data)) || !strings.HasPrefix(d.Table, "data,,,ro,") {
		t.Errorf("%+v, %v", d, err)
	}
}

// The partition with the signature has the root hash, which leads to the pair among others, and
// its signature, which must be valid.
func TestOpenSignedPartitions(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	keys := t.TempDir()
	old := certificateDirs
	certificateDirs = []string{keys}
	defer func() { certificateDirs = old }()
	openssl(t, keys, "req", "-batch", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", "key", "-out", "signer.crt", "-subj", "/CN=signer", "-days", "1")
	sign := func(root []byte) []byte {
		t.Helper()
		write(t, filepath.Join(keys, "root"), []byte(hex.EncodeToString(root)))
		openssl(t, keys, "smime", "-sign", "-binary", "-noattr", "-nocerts", "-in", "root", "-signer", "signer.crt", "-inkey", "key", "-outform", "der", "-out", "p7s")
		return read(t, filepath.Join(keys, "p7s"))
	}
	a, b := newPair(t, "a"), newPair(t, "b")
	signed, unsigned := Location{RootHash: "auto", Signature: "auto"}, Location{RootHash: "auto"}
	dir := partitioned(t, dataOf(b, 0), treeOf(b, 0), dataOf(a, 0), treeOf(a, 0), signatureOf(a.root, sign(a.root), 0))
	opens(t, dir, signed, a, 3, 4)
	opens(t, dir, unsigned, a, 3, 4)
	opens(t, dir, Location{RootHash: hex.EncodeToString(a.root), Signature: "auto"}, a, 3, 4)
	fails(t, dir, Location{RootHash: hex.EncodeToString(b.root), Signature: "auto"}, unix.ENODATA, "no signature of the root hash")
	opens(t, dir, Location{RootHash: hex.EncodeToString(b.root)}, b, 1, 2)
	// A signature of another root hash.
	dir = partitioned(t, dataOf(a, 0), treeOf(a, 0), signatureOf(a.root, sign(b.root), 0))
	fails(t, dir, signed, unix.EKEYREJECTED, "signature of the root hash")
	opens(t, dir, unsigned, a, 1, 2)
	dir = partitioned(t, dataOf(a, 0), treeOf(a, 0))
	fails(t, dir, signed, unix.ENODATA, "no signature of the root hash")
	// A signature for partitions that are missing.
	fails(t, partitioned(t, dataOf(b, 0), treeOf(b, 0), signatureOf(a.root, sign(a.root), 0)), signed, unix.ENODATA, "no root hash")
	// Two signed versions.
	dir = partitioned(t, dataOf(b, 0), treeOf(b, 0), dataOf(a, 0), treeOf(a, 0), signatureOf(a.root, sign(a.root), 0), signatureOf(b.root, sign(b.root), 0))
	fails(t, dir, signed, unix.ENOTUNIQ, "several root partitions")
	opens(t, dir, Location{RootHash: hex.EncodeToString(b.root), Signature: "auto"}, b, 1, 2)
}

// A partition with a signature can have any content.
func TestOpenSignedPartitionsHostile(t *testing.T) {
	a := newPair(t, "a")
	good := signatureOf(a.root, []byte("x"), 0)
	with := func(text string) partition {
		return partition{kind: good.kind, content: []byte(text)}
	}
	large := good
	large.size = maxSignaturePartition + 1<<20
	for _, tt := range []struct {
		name  string
		more  []partition
		errno error
		text  string
	}{
		{"empty", []partition{with("")}, unix.EINVAL, "unexpected end of JSON"},
		{"no object", []partition{with("[]")}, unix.EINVAL, "an array where an object is expected"},
		{"deep", []partition{with(strings.Repeat("[", 900<<10))}, unix.EINVAL, "max depth"},
		{"text behind the zeroes", []partition{with(string(good.content) + "\x00x")}, unix.EINVAL, "invalid character"},
		{"short root hash", []partition{with(`{"rootHash":"00"}`)}, verity.ErrInvalid, "root hash in the signature"},
		{"no root hash", []partition{with(`{}`)}, verity.ErrInvalid, "root hash in the signature"},
		{"no base64", []partition{with(fmt.Sprintf(`{"rootHash":"%x","signature":"$"}`, a.root))}, unix.EINVAL, "illegal base64"},
		{"large", []partition{large}, unix.EFBIG, "signature of 5242880 bytes"},
		{"many", []partition{good, good, good, good, good, good, good, good, good}, unix.E2BIG, "9 signatures of root partitions"},
	} {
		dir := partitioned(t, append([]partition{dataOf(a, 0), treeOf(a, 0)}, tt.more...)...)
		if _, err := openDevice(t, dir, Location{RootHash: "auto"}); !errors.Is(err, tt.errno) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.errno, tt.text)
		}
		opens(t, dir, Location{RootHash: hex.EncodeToString(a.root)}, a, 1, 2)
	}
}
