package debian

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// build builds the packages into a directory of the test, and returns it.
func build(t testing.TB, env ...string) string {
	t.Helper()
	dependOnSource(t)
	dir := filepath.Join(t.TempDir(), "packages")
	cmd := exec.Command(top(t)+"/scripts/packages.sh", dir)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packages.sh: %v\n%s", err, out)
	}
	return dir
}

// dependOnSource looks at all files of the source, so that go test does not repeat an older result after
// a change. It does not know which files the scripts read.
func dependOnSource(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(top(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if name := filepath.Base(path); name == ".git" || name == "bin" {
				return fs.SkipDir
			}
			return err
		}
		_, err = os.Stat(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shared has the packages that tests only read.
var shared struct {
	once sync.Once
	dir  string
}

func TestMain(m *testing.M) {
	status := m.Run()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(status)
}

// packages returns a directory with the packages, which are built once.
func packages(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		built := build(t)
		dir, err := os.MkdirTemp("", "ublk-loop-packages")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(built)); err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
	})
	if shared.dir == "" {
		t.Fatal("the packages could not be built")
	}
	return shared.dir
}

// one returns the only file that matches a pattern.
func one(t testing.TB, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %q, %v, want one file", pattern, paths, err)
	}
	return paths[0]
}

func sums(t testing.TB, dir string) map[string][sha256.Size]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string][sha256.Size]byte{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = sha256.Sum256(text)
	}
	return sums
}

// Two builds have the same bytes, even if directory, time zone, umask and language differ.
func TestLongPackagesAreReproducible(t *testing.T) {
	first := sums(t, packages(t))
	second := sums(t, build(t, "TZ=Asia/Kathmandu", "LC_ALL=C", "TMPDIR="+t.TempDir()))
	// Two packages in three formats, an archive, two lists of modules and the sums.
	if len(first) != 10 || len(second) != len(first) {
		t.Errorf("%d and %d files, want 10", len(first), len(second))
	}
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
}

// SHA256SUMS is right, and has every other file.
func TestPackagesHaveSums(t *testing.T) {
	dir := packages(t)
	cmd := exec.Command("sha256sum", "--strict", "-c", "SHA256SUMS")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if n := bytes.Count(out, []byte(": OK\n")); err != nil || n != len(sums(t, dir))-1 {
		t.Errorf("%v, %d files are right\n%s", err, n, out)
	}
}

// The archive has what "make install" makes, and it and the packages have what users look for.
func TestPackagesContents(t *testing.T) {
	needProgram(t, "dpkg-deb", "dpkg")
	dir := packages(t)
	out, err := exec.Command("tar", "-tzf", one(t, dir+"/*.tar.gz")).Output()
	if err != nil {
		t.Fatal(err)
	}
	archive := strings.Fields(string(out))
	out, err = exec.Command("dpkg-deb", "--fsys-tarfile", one(t, dir+"/ublk-loop_*.deb")).Output()
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("tar", "-t")
	list.Stdin = bytes.NewReader(out)
	out, err = list.Output()
	if err != nil {
		t.Fatal(err)
	}
	deb := strings.Fields(string(out))
	for _, path := range []string{
		"usr/bin/ublk-loop", "usr/bin/ublk-runc", "usr/bin/ublk-crun", "usr/bin/ublk-losetup", "usr/sbin/mount.ublk-loop", "usr/lib/udev/rules.d/61-ublk-loop.rules",
		"usr/lib/systemd/system/ublk-loop.service", "usr/lib/systemd/system/ublk-loop.socket",
		"usr/lib/dracut/modules.d/90ublk-loop/module-setup.sh", "usr/share/initramfs-tools/hooks/ublk-loop",
		"usr/share/initramfs-tools/scripts/local-top/ublk-loop", "usr/lib/ublk-loop/attach", "usr/lib/systemd/system-shutdown/ublk-loop",
		"usr/lib/modules-load.d/ublk-loop.conf", "usr/lib/tmpfiles.d/ublk-loop.conf", "usr/share/man/man8/ublk-loop.8.gz",
		"usr/share/bash-completion/completions/ublk-loop", "usr/share/fish/vendor_completions.d/ublk-loop.fish",
	} {
		for name, paths := range map[string][]string{"archive": archive, "deb": deb} {
			if !slices.Contains(paths, "./"+path) {
				t.Errorf("%s: no %s", name, path)
			}
		}
	}
	for _, document := range documents(t) {
		for name, paths := range map[string][]string{"archive": archive, "deb": deb} {
			if !slices.Contains(paths, "./usr/share/doc/ublk-loop/"+document) {
				t.Errorf("%s: no %s, which the manual names", name, document)
			}
		}
	}
	for path, paths := range map[string][]string{
		"usr/share/zsh/site-functions/_ublk-loop": archive, "usr/share/zsh/vendor-completions/_ublk-loop": deb,
		"etc/ublk-loop/oci.toml": deb, "usr/libexec/ublk-loop/ublk-loop-snapshotter": archive,
	} {
		if !slices.Contains(paths, "./"+path) {
			t.Errorf("no %s", path)
		}
	}
}

// documents returns the documents that the manual names.
func documents(t *testing.T) []string {
	t.Helper()
	manual, err := os.ReadFile(top(t) + "/docs/ublk-loop.8")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`docs/\w+\.md`).FindAllString(string(manual), -1)
	if len(names) == 0 {
		t.Error("the manual names no documents")
	}
	return names
}

// The package for rpm has the documents, too.
func TestPackagesContentsOfRPM(t *testing.T) {
	needProgram(t, "busybox", "busybox-static")
	out, err := exec.Command("busybox", "rpm", "-qpl", one(t, packages(t)+"/ublk-loop-0*.rpm")).Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(out))
	for _, document := range documents(t) {
		if !slices.Contains(paths, "/usr/share/doc/ublk-loop/"+document) {
			t.Errorf("no %s, which the manual names", document)
		}
	}
}

// The lists of modules name the modules that the programs were linked with.
func TestPackagesHaveModules(t *testing.T) {
	for pattern, module := range map[string]string{
		"/ublk-loop_*.cdx.json": "golang.org/x/sys", "/ublk-loop-snapshotter_*.cdx.json": "github.com/containerd/containerd",
	} {
		text, err := os.ReadFile(one(t, packages(t)+pattern))
		if err != nil || !strings.Contains(string(text), "pkg:golang/"+module) {
			t.Errorf("%s: no %s (%v)", pattern, module, err)
		}
	}
}

// Debian's checker finds no error.
func TestLongPackagesPassLintian(t *testing.T) {
	needProgram(t, "lintian", "lintian")
	paths := two(t, "/*.deb")
	if out, err := exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error"}, paths...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// rpm's checker finds no error.
//
// It unpacks packages with cpio, which as root writes to the paths that the package has: over the
// programs of this machine. So it gets another cpio, and a file system that it cannot write to.
func TestLongPackagesPassRpmlint(t *testing.T) {
	needProgram(t, "rpmlint", "rpmlint")
	paths := two(t, "/*.rpm")
	dir := t.TempDir()
	wrapper := "#!/bin/sh\nexec /usr/bin/cpio --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mount --make-rprivate /
mount --bind "$TMPDIR" "$TMPDIR"
mount -o remount,bind,ro /
cd "$TMPDIR"
exec rpmlint "$@"`
	args := []string{"-c", script, "rpmlint", "-c", top(t) + "/packaging/rpmlint.toml"}
	cmd := exec.Command("unshare", append(append([]string{"--mount", "sh"}, args...), paths...)...)
	if os.Getuid() != 0 {
		cmd.Args = append([]string{"unshare", "--user", "--map-root-user"}, cmd.Args[1:]...)
	}
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("\n 2 packages ")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// two returns the two packages of a pattern.
func two(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(packages(t) + pattern)
	if err != nil || len(paths) != 2 {
		t.Fatalf("%s: %q, %v", pattern, paths, err)
	}
	return paths
}

// "make install" puts the files below DESTDIR and PREFIX, and the paths in them fit.
func TestMakeInstall(t *testing.T) {
	needProgram(t, "make", "make")
	dir := t.TempDir()
	cmd := exec.Command("make", "-C", top(t), "install", "DESTDIR="+dir, "PREFIX=/opt/ublk")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "BIN="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(dir+"/opt/ublk/bin/ublk-loop", "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "ublk-loop ") {
		t.Errorf("%q, %v", out, err)
	}
	unit, err := os.ReadFile(dir + "/opt/ublk/lib/systemd/system/ublk-loop.service")
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/opt/ublk/bin/ublk-loop serve\n") {
		t.Errorf("%s, %v", unit, err)
	}
	if target, err := os.Readlink(dir + "/sbin/mount.ublk-loop"); err != nil || target != "/opt/ublk/bin/ublk-loop" {
		t.Errorf("the mount helper is a link to %q, %v", target, err)
	}
}
