package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// diskBed has directories of images, keys and stores, and an image of 64 KiB with its tree.
type diskBed struct {
	*Settings
	testing.TB
	dir, image, root string
}

func newDiskBed(t *testing.T) *diskBed {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	makeDirs(t, dir, 0o700, "images/deep", "keys", "stores", "transient", "outside")
	b := &diskBed{TB: t, dir: dir, image: dir + "/images/deep/a,b.img", Settings: &Settings{
		Lists:         Lists{AllowedImages: []string{dir + "/images"}, AllowedKeyFiles: []string{dir + "/keys"}},
		AllowedStores: []string{dir + "/stores"}, TransientStores: dir + "/transient",
	}}
	b.write(b.image, strings.Repeat("d", 64<<10))
	f, err := verityfile.Format(context.Background(), verityfile.FormatOptions{
		Location:   verityfile.Location{Image: b.image},
		Superblock: verity.Superblock{Params: verity.Params{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.root = fmt.Sprintf("%x", f.Root)
	b.write(dir+"/keys/key", strings.Repeat("k", 64))
	b.write(dir+"/stores/store", strings.Repeat("\x00", 256<<10))
	return b
}

func (b *diskBed) write(path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// request returns the request for annotations, and closes its files.
func (b *diskBed) request(who Requester, pairs ...string) (*DiskRequest, error) {
	b.Helper()
	annotations := asked(pairs...)
	annotations[imageAnnotation] = b.image
	r, err := parseRootfs(annotations)
	if err != nil {
		b.Fatal(err)
	}
	image, err := b.OpenImage(r.image, &r.disk, who)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	d, err := b.Request(image, &r.disk, who)
	if err == nil {
		d.Close()
	}
	return d, err
}

// Each combination of layers is a table that parses, with a file for each name in it.
func TestDiskRequest(t *testing.T) {
	b := newDiskBed(t)
	checked := fmt.Sprintf("verity 1 IMAGE IMAGE 4096 4096 16 17 sha256 %s SALT", b.root)
	encrypt, checks, writes := []string{"encrypt", "file:" + b.dir + "/keys/key"}, []string{"verity.roothash", b.root}, []string{"options", "rw", "cow"}
	kept, ends := append(writes, "file:"+b.dir+"/stores/store"), append(writes[:3:3], "transient")
	const secret = "secret,,,rw,0 %d crypt aes-xts-plain64 :64:user:ephemeral 0 TRANSIENT 0;changes,,,rw,0 "
	const crypt = "0 128 crypt aes-xts-plain64 :64:user:container 0 /dev/mapper/"
	for _, tt := range []struct {
		asked [][]string
		table string
		files int
	}{
		{nil, "", 0},
		{[][]string{encrypt}, "", 0},
		{[][]string{checks}, "verified,,,ro,0 128 " + checked, 1},
		{[][]string{checks, encrypt}, "verified,,,ro,0 128 " + checked + ";clear,,,ro," + crypt + "verified 0", 1},
		{[][]string{kept}, "changes,,,rw,0 SIZE snapshot IMAGE STORE P 128", 2},
		{[][]string{ends, checks}, "verified,,,ro,0 128 " + checked + ";changes,,,rw,0 128 snapshot /dev/mapper/verified TRANSIENT N 128", 2},
		{[][]string{ends, {"encrypt", "ephemeral"}}, fmt.Sprintf(secret, 256) + "SIZE snapshot IMAGE /dev/mapper/secret N 128", 2},
		{
			[][]string{ends, checks, {"encrypt", "ephemeral"}},
			"verified,,,ro,0 128 " + checked + ";" + fmt.Sprintf(secret, 128) + "128 snapshot /dev/mapper/verified /dev/mapper/secret N 128", 2,
		},
		{
			[][]string{kept, checks, encrypt},
			"verified,,,ro,0 128 " + checked + ";changes,,,rw,0 128 snapshot /dev/mapper/verified STORE P 128;clear,,,rw," + crypt + "changes 0", 2,
		},
	} {
		var pairs []string
		for _, p := range tt.asked {
			pairs = append(pairs, p...)
		}
		d, err := b.request(Requester{}, pairs...)
		if err != nil {
			t.Errorf("%q: %v", pairs, err)
			continue
		}
		if text := b.plain(d.Add.Table); text != tt.table || len(d.Files.Table) != tt.files || (d.Files.File == nil) != (tt.files > 0) {
			t.Errorf("%q: table\n%s, want\n%s, %d files", pairs, text, tt.table, len(d.Files.Table))
		}
		if (d.Files.Key != nil) != strings.Contains(strings.Join(pairs, " "), "encrypt file:") || d.Add.Config.ReadOnly == strings.Contains(strings.Join(pairs, " "), "rw") {
			t.Errorf("%q: %+v", pairs, d)
		}
		if d.Add.Table == "" {
			continue
		}
		if d.Add.RandomKeys != strings.Contains(d.Add.Table, "secret") || d.Add.RandomKeys && len(tt.asked) == 2 && d.Files.Table[1].Name() != b.image {
			t.Errorf("%q: %+v", pairs, d)
		}
		if s, err := table.Parse([]byte(d.Add.Table), table.Options{}); err != nil || len(s.Devices()) != tt.files {
			t.Errorf("%q: %s: error %v", pairs, d.Add.Table, err)
		}
	}
}

// An image of partitions has data and tree in two of them.
func TestDiskRequestPartitions(t *testing.T) {
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed")
	}
	b := newDiskBed(t)
	data, hash := b.dir+"/outside/data", b.dir+"/outside/hash"
	b.write(data, strings.Repeat("p", 64<<10))
	f, err := verityfile.Format(context.Background(), verityfile.FormatOptions{
		Location:   verityfile.Location{Image: data, HashFile: hash},
		Superblock: verity.Superblock{Params: verity.Params{Algorithm: "sha256", DataBlockSize: 4096, HashBlockSize: 4096}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := os.ReadFile(hash)
	if err != nil {
		t.Fatal(err)
	}
	const unit = 1 << 20
	b.write(b.image, strings.Repeat("\x00", unit)+strings.Repeat("p", 64<<10)+strings.Repeat("\x00", unit-64<<10)+string(tree)+strings.Repeat("\x00", unit))
	uuid := func(id []byte) string {
		return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	}
	cmd := exec.Command("sfdisk", "-q", "--no-reread", "--no-tell-kernel", b.image)
	types := map[string][2]string{
		"amd64": {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"},
		"arm64": {"b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820"},
	}[runtime.GOARCH]
	cmd.Stdin = strings.NewReader(fmt.Sprintf("label: gpt\nstart=1MiB, size=64KiB, type=%s, uuid=%s\nstart=2MiB, size=8KiB, type=%s, uuid=%s\n",
		types[0], uuid(f.Root[:16]), types[1], uuid(f.Root[16:])))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	b.root = fmt.Sprintf("%x", f.Root)
	d, err := b.request(Requester{}, "verity.roothash", "auto", "options", "rw", "cow", "transient")
	if err != nil {
		t.Fatal(err)
	}
	want := "data,,,ro,0 128 linear IMAGE 2048;hash,,,ro,0 16 linear IMAGE 4096;verified,,,ro,0 128 verity 1 /dev/mapper/data /dev/mapper/hash " +
		"4096 4096 16 1 sha256 " + b.root + " SALT;changes,,,rw,0 128 snapshot /dev/mapper/verified TRANSIENT N 128"
	if text := b.plain(d.Add.Table); text != want || len(d.Files.Table) != 2 {
		t.Errorf("table\n%s, want\n%s, %d files", text, want, len(d.Files.Table))
	}
}

// plain replaces what differs from run to run in a table.
func (b *diskBed) plain(text string) string {
	b.Helper()
	info, err := os.Stat(b.image)
	if err != nil {
		b.Fatal(err)
	}
	words := strings.Fields(strings.ReplaceAll(text, ";", " ; "))
	for i, word := range words {
		switch {
		case word == table.Escape(b.image):
			words[i] = "IMAGE"
		case word == table.Escape(b.dir+"/stores/store"):
			words[i] = "STORE"
		case word == table.Escape(b.dir+"/transient/transient"):
			words[i] = "TRANSIENT"
		case i > 0 && words[i-1] == b.root:
			words[i] = "SALT"
		case word == fmt.Sprint(info.Size()/512):
			words[i] = "SIZE"
		}
	}
	return strings.ReplaceAll(strings.Join(words, " "), " ; ", ";")
}

// The settings demand verity or a signature for directories, also by a link to them, and only
// for the handlers that they name.
func TestDemandVerity(t *testing.T) {
	b := newDiskBed(t)
	if err := os.Symlink("images/deep", b.dir+"/link"); err != nil {
		t.Fatal(err)
	}
	all, deep, link, other := b.dir+"/images", b.dir+"/images/deep/", b.dir+"/link", b.dir+"/images/de"
	for _, tt := range []struct {
		verity, signed []string
		pairs          []string
		want           string // part of the error
	}{
		{[]string{all}, nil, nil, "verity_images"},
		{[]string{deep}, nil, nil, "verity_images"},
		{[]string{other, link}, nil, nil, "verity_images"},
		{[]string{other}, []string{other}, nil, ""},
		{[]string{all}, nil, []string{"verity.roothash", b.root}, ""},
		{nil, []string{deep}, nil, "signed_images"},
		{nil, []string{deep}, []string{"verity.roothash", b.root}, "signed_images"},
		{nil, []string{deep}, []string{"verity.roothash", b.root, "verity.roothashsig", "auto"}, "no signature"},
	} {
		b.VerityImages, b.SignedImages = tt.verity, tt.signed
		_, err := b.request(Requester{}, tt.pairs...)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("verity_images %q, signed_images %q, %q: error %v", tt.verity, tt.signed, tt.pairs, err)
		}
		if strings.HasSuffix(tt.want, "_images") && !errors.Is(err, unix.EPERM) {
			t.Errorf("verity_images %q, signed_images %q: error %v is not EPERM", tt.verity, tt.signed, err)
		}
	}
	b.VerityImages, b.SignedImages = []string{all}, nil
	b.Handlers = map[string]Lists{"runc-free": {VerityImages: []string{}}}
	b.Owners = map[string]Lists{"7": {VerityImages: []string{deep}}}
	for _, tt := range []struct {
		who     Requester
		refused bool
	}{{Requester{Handler: "runc"}, true}, {Requester{Handler: "runc-free"}, false}, {Requester{Handler: "runc-free", Owners: []uint32{7}}, true}} {
		if _, err := b.request(tt.who); errors.Is(err, unix.EPERM) != tt.refused {
			t.Errorf("%+v: error %v", tt.who, err)
		}
	}
}

// The tree and the signature are below the directories of images, and no link leads to them.
func TestVerityFilesAreAllowed(t *testing.T) {
	b := newDiskBed(t)
	b.write(b.dir+"/outside/file", b.root)
	if err := os.Symlink(b.dir+"/outside/file", b.dir+"/images/link"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want error
	}{{b.dir + "/outside/file", below.ErrNotAllowed}, {"/dev/zero", below.ErrNotAllowed}, {b.dir + "/images/link", unix.ELOOP}, {b.dir + "/images/deep", unix.EINVAL}} {
		for _, name := range []string{"verity.hashfile", "verity.roothashsig"} {
			if _, err := b.request(Requester{}, "verity.roothash", b.root, name, tt.path); !errors.Is(err, tt.want) {
				t.Errorf("%s=%s: error %v, want %v", name, tt.path, err, tt.want)
			}
		}
	}
	beside := strings.TrimSuffix(b.image, ".raw") + ".roothash"
	if err := os.Symlink(b.dir+"/outside/file", beside); err != nil {
		t.Fatal(err)
	}
	if _, err := b.request(Requester{}, "verity.roothash", "auto"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link beside the image: error %v", err)
	}
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	b.write(beside, b.root)
	if _, err := b.request(Requester{}, "verity.roothash", "auto"); err != nil {
		t.Errorf("a root hash beside the image: error %v", err)
	}
}
