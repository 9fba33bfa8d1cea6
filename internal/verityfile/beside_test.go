package verityfile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
)

// besideImage makes disk.raw with its tree behind it, and returns its directory and the root hash.
func besideImage(t *testing.T) (dir, root string) {
	t.Helper()
	_, content := newImage(t, 300*512)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "disk.raw"), content)
	f := format(t, FormatOptions{Location: Location{Image: filepath.Join(dir, "disk.raw")}, Superblock: superblock(t)})
	return dir, fmt.Sprintf("%x", f.Root)
}

func openForTest(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|flags, 0)
}

// openDevice opens disk.raw.
func openDevice(t *testing.T, dir string, where Location) (*Device, error) {
	t.Helper()
	image, err := loop.OpenPath(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	where.Opener = openForTest
	d, err := Open(image, &where)
	if err != nil {
		return nil, errors.Join(err, image.Close())
	}
	t.Cleanup(func() {
		for _, f := range d.Files {
			_ = f.Close()
		}
	})
	return d, nil
}

// The table has the path of the image, with any letters. A path that a table cannot have is replaced.
func TestTableNamesImage(t *testing.T) {
	dir, root := besideImage(t)
	for name, want := range map[string]string{"größe": " größe/disk.raw ", "a b": " image "} {
		other := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(other, 0o700), os.Link(filepath.Join(dir, "disk.raw"), filepath.Join(other, "disk.raw"))); err != nil {
			t.Fatal(err)
		}
		d, err := openDevice(t, other, Location{RootHash: root})
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(d.Table, dir+"/", ""); !strings.Contains(text, want) {
			t.Errorf("in %q the table is %q, without %q", name, text, want)
		}
	}
}

// The root hash is found in systemd's attribute, in systemd's files, and in containerd's file, in
// this order. The tree is in systemd's file if there is one.
func TestOpenAuto(t *testing.T) {
	dir, root := besideImage(t)
	beside := func(name string) string { return filepath.Join(dir, name) }
	if _, err := openDevice(t, dir, Location{RootHash: "auto"}); !errors.Is(err, unix.ENODATA) {
		t.Errorf("nothing beside the image: %v", err)
	} else if h := (*hint.Error)(nil); !errors.As(err, &h) || !strings.HasSuffix(h.Hint, " put it into "+beside("disk.roothash")) {
		t.Errorf("nothing beside the image: hint %+v", h)
	}
	write(t, beside("disk.raw.dmverity"), []byte(fmt.Sprintf(`{"roothash":%q,"hashoffset":153600}`, root)))
	found := func(what string, files int) {
		t.Helper()
		d, err := openDevice(t, dir, Location{RootHash: "auto"})
		if err != nil || len(d.Files) != files || !strings.Contains(d.Table, root) {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
	}
	found("containerd's file", 1)
	write(t, beside("disk.raw.dmverity"), []byte(`{"roothash":"00"}`))
	write(t, beside("disk.roothash"), []byte(root+"\n"))
	found("systemd's file", 1)
	s := superblock(t)
	s.DataBlocks = 150
	format(t, FormatOptions{Location: Location{Image: beside("disk.raw"), HashFile: beside("disk.verity")}, Superblock: s})
	found("systemd's tree", 2)
	write(t, beside("disk.roothash"), []byte("x"))
	if _, err := openDevice(t, dir, Location{RootHash: "auto"}); err == nil || !strings.Contains(err.Error(), "root hash in .roothash: not 40, 64") {
		t.Errorf("a wrong file: %v", err)
	}
	err := unix.Setxattr(beside("disk.raw"), rootAttribute, []byte(root), 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("no extended attributes of users here")
	}
	if err != nil {
		t.Fatal(err)
	}
	found("the attribute", 2)
}

// A file beside the image is not followed elsewhere, and is no pipe and not large.
func TestOpenAutoIsSafe(t *testing.T) {
	dir, root := besideImage(t)
	path := filepath.Join(dir, "disk.roothash")
	elsewhere := filepath.Join(t.TempDir(), "root")
	write(t, elsewhere, []byte(root))
	for _, tt := range []struct {
		what string
		make func() error
		want error
	}{
		{"a link", func() error { return os.Symlink(elsewhere, path) }, unix.ELOOP},
		{"a pipe", func() error { return unix.Mkfifo(path, 0o600) }, unix.EINVAL},
		{"a directory", func() error { return os.Mkdir(path, 0o700) }, unix.EINVAL},
		{"a large file", func() error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) }, unix.EFBIG},
	} {
		if err := tt.make(); err != nil {
			t.Fatal(err)
		}
		if _, err := openDevice(t, dir, Location{RootHash: "auto"}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	image, err := loop.OpenPath(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	write(t, path, []byte(root))
	if err := os.Rename(filepath.Join(dir, "disk.raw"), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "disk.raw"), nil)
	if _, err := Open(image, &Location{RootHash: "auto", Opener: openForTest}); !errors.Is(err, unix.ESTALE) {
		t.Errorf("another image has the name: %v", err)
	}
}

// openssl runs openssl in a directory.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
}

// Signatures of openssl, as systemd's and veritysetup's documentation makes them, are valid by
// the certificate of the signer, and by no other.
func TestSignature(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir, root := besideImage(t)
	host := [3]string{t.TempDir(), filepath.Join(t.TempDir(), "missing"), t.TempDir()}
	old := certificateDirs
	certificateDirs = host[:]
	defer func() { certificateDirs = old }()
	write(t, filepath.Join(dir, "content"), []byte(root))
	sign := signer(t, dir)
	makeCertificate(t, dir, "other")
	try := func(signature string) error {
		t.Helper()
		_, err := openDevice(t, dir, Location{RootHash: root, Signature: signature})
		return err
	}
	good := sign("content", "-noattr", "-nocerts")
	if err := try(good); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("no certificates: %v", err)
	}
	certificate := func(from, to string) {
		t.Helper()
		write(t, to, read(t, filepath.Join(dir, from)))
	}
	certificate("other.crt", filepath.Join(host[0], "a.crt"))
	if err := try(good); !errors.Is(err, unix.EKEYREJECTED) {
		t.Errorf("only another certificate: %v", err)
	}
	certificate("signer.crt", filepath.Join(host[2], "b.crt"))
	for _, flags := range [][]string{{"-noattr", "-nocerts"}, {"-nocerts"}, {"-noattr"}, {}, {"-nodetach"}} {
		if err := try(sign("content", flags...)); err != nil {
			t.Errorf("signed with %v: %v", flags, err)
		}
	}
	certificate("signer.p7s", filepath.Join(dir, "disk.roothash.p7s"))
	if err := try("auto"); err != nil {
		t.Errorf("the signature beside the image: %v", err)
	}
	write(t, filepath.Join(dir, "wrong"), []byte(strings.Repeat("0", 64)))
	for _, flags := range [][]string{{"-noattr"}, {}, {"-nodetach"}} {
		if err := try(sign("wrong", flags...)); !errors.Is(err, unix.EKEYREJECTED) {
			t.Errorf("another root hash, signed with %v: %v", flags, err)
		}
	}
	if err := try(filepath.Join(dir, "content")); !errors.Is(err, unix.EKEYREJECTED) {
		t.Errorf("no signature: %v", err)
	}
	// A file of the same name in an earlier directory hides the certificate.
	write(t, filepath.Join(host[0], "b.crt"), nil)
	if err := try(sign("content")); !errors.Is(err, unix.EKEYREJECTED) {
		t.Errorf("a hidden certificate: %v", err)
	}
	if err := try(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// makeCertificate makes a key and a certificate with a name in a directory.
func makeCertificate(t *testing.T, dir, name string) {
	t.Helper()
	openssl(t, dir, "req", "-batch", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", name+".key", "-out", name+".crt",
		"-subj", "/CN="+name, "-days", "1")
}

// signer makes the certificate "signer" in a directory. It returns a function that signs a file
// there, and returns the path of the signature.
func signer(t *testing.T, dir string) func(content string, flags ...string) string {
	t.Helper()
	makeCertificate(t, dir, "signer")
	return func(content string, flags ...string) string {
		t.Helper()
		openssl(t, dir, append([]string{
			"smime", "-sign", "-binary", "-in", content, "-signer", "signer.crt", "-inkey", "signer.key", "-outform", "der", "-out", "signer.p7s",
		}, flags...)...)
		return filepath.Join(dir, "signer.p7s")
	}
}
