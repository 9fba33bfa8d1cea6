package pool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Names are data: no name leads to another file, and ids differ by name, node and kind.
func TestID(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"", "..", "../../etc/passwd", "a", "a\x00", strings.Repeat("ü", 64), "pvc-1"} {
		for _, node := range []string{"a", "b"} {
			for _, kind := range []Kind{Volumes, Snapshots} {
				id := ID(kind, node, name)
				if !IsID(kind, id) || !IsOf(kind, id, node) || IsOf(kind, id, node+"x") || filepath.Base(id) != id {
					t.Errorf("%q of %q: %q", name, node, id)
				}
				if old, found := seen[id]; found {
					t.Errorf("%q has the id of %q", name, old)
				}
				seen[id] = name
			}
		}
	}
	good := ID(Volumes, "a", "b")
	for _, id := range []string{"", "vol-", "../" + good, good + "0", good[1:], strings.ToUpper(good), ID(Snapshots, "a", "b"), strings.Replace(good, "-", "/", 1)} {
		if IsID(Volumes, id) {
			t.Errorf("%q is an id", id)
		}
	}
}

func newPool(t *testing.T) *Pool {
	t.Helper()
	p, err := Open(filepath.Join(t.TempDir(), "pool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestStore(t *testing.T) {
	p := newPool(t)
	id := ID(Volumes, "node", "a")
	want := &Volume{ID: id, Name: "../a", State: Making, Size: 4096, Stage: &Stage{Path: "/x"}}
	if err := p.Volumes.Write(id, want); err != nil {
		t.Fatal(err)
	}
	if err := p.Volumes.Create(id, 4096, true); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Volumes.Allocated(id); err != nil || n != 4096 {
		t.Errorf("a thick image takes %d bytes, error %v", n, err)
	}
	got, err := p.Volumes.Read(id)
	if err != nil || got.Name != want.Name || got.Stage.Path != "/x" {
		t.Errorf("%+v, error %v", got, err)
	}
	if err := os.WriteFile(p.Volumes.ImagePath(id)+unfinishedSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if ids, err := p.Volumes.IDs(); err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("ids %q, error %v", ids, err)
	}
	if err := p.Volumes.RemoveUnfinished(); err != nil {
		t.Error(err)
	}
	damaged := ID(Volumes, "node", "damaged")
	if err := os.WriteFile(filepath.Join(filepath.Dir(p.Volumes.ImagePath(id)), damaged+recordSuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, broken, err := p.Volumes.All()
	if err != nil || len(all) != 1 || all[0].Name != want.Name || len(broken) != 1 || !strings.Contains(broken[0].Error(), damaged) {
		t.Errorf("with a damaged record: %+v, damaged %v, error %v", all, broken, err)
	}
	if err := errors.Join(p.Volumes.Remove(id), p.Volumes.Remove(damaged)); err != nil {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(p.Volumes.ImagePath(id)), "*")); len(files) > 0 {
		t.Errorf("left: %q", files)
	}
	for _, id := range []string{id, "../lock", ""} {
		if _, err := p.Volumes.Read(id); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("read %q: error %v", id, err)
		}
	}
}

// A copy has the data and the holes of its source, and the rest of its size is zero.
func TestCopy(t *testing.T) {
	p := newPool(t)
	from, to := ID(Volumes, "node", "from"), ID(Volumes, "node", "to")
	if err := p.Volumes.Create(from, 8<<20, false); err != nil {
		t.Fatal(err)
	}
	f, err := p.Volumes.OpenImage(from, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	data := bytes.Repeat([]byte("data"), 1024)
	if _, err := f.WriteAt(data, 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := p.Volumes.Copy(t.Context(), to, f, 16<<20, false, false); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(p.Volumes.ImagePath(to))
	if err != nil || len(got) != 16<<20 || !bytes.Equal(got[4<<20:4<<20+len(data)], data) || len(bytes.Trim(got, "\x00dat")) > 0 {
		t.Errorf("the copy of %d bytes differs, error %v", len(got), err)
	}
	if n, err := p.Volumes.Allocated(to); err != nil || n > 1<<20 {
		t.Errorf("the copy takes %d bytes, error %v", n, err)
	}
}

// A pool has one driver, and no other users can write to it.
func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pool")
	p, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("second driver: error %v, want EAGAIN", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, unix.EPERM) {
		t.Errorf("a pool that others can write to: error %v, want EPERM", err)
	}
	if _, err := Open("pool"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a relative path: error %v, want EINVAL", err)
	}
}

// The tables of a chain name its files from the image up, and only the upper one is written to. A
// chain that leads back to itself is an error.
func TestChain(t *testing.T) {
	p := newPool(t)
	ids := []string{NewLayerID("n"), NewLayerID("n"), NewLayerID("n")}
	if err := p.MakeImageLayer(ids[0], 1<<20, false); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids[1:] {
		if err := p.MakeStore(id, ids[i], false); err != nil {
			t.Fatal(err)
		}
	}
	chain, err := p.Chain(ids[2])
	if err != nil || len(chain) != 3 || chain[0].ID != ids[0] || chain[2].ID != ids[2] {
		t.Fatalf("%v, error %v", chain, err)
	}
	path := p.Layers.ImagePath
	want := "layer1,,,ro,0 2048 snapshot " + path(ids[0]) + " " + path(ids[1]) + " P 128;" +
		"layer2,,,rw,0 2048 snapshot /dev/mapper/layer1 " + path(ids[2]) + " P 128"
	if got := p.Table(chain, nil); got != want {
		t.Errorf("table %q, want %q", got, want)
	}
	chain[0].Parent = ids[2]
	if err := p.Layers.Write(ids[0], chain[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Chain(ids[2]); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a chain without an end: error %v", err)
	}
	strange, err := Open(filepath.Join(t.TempDir(), "a pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = strange.Close() }()
	if strange.CanLayer() || !p.CanLayer() {
		t.Errorf("%v can have layers, %v can", strange.CanLayer(), p.CanLayer())
	}
}

// A record is replaced without a new file, and the spare file keeps its size for larger records.
func TestSpare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	id := ID(Volumes, "n", "v")
	if err := p.Volumes.Write(id, &Volume{ID: id, Name: strings.Repeat("long", 100)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"second", "third", strings.Repeat("larger", 1000), strings.Repeat("too large", 10000), "fourth"} {
		if err := p.spare.replace("volumes/"+id+".json", []byte(`{"name":"`+name+`"}`)); err != nil {
			t.Fatal(err)
		}
		if v, err := p.Volumes.Read(id); err != nil || v.Name != name {
			t.Errorf("record %+v, error %v", v, err)
		}
		if size, err := p.spare.size(); err != nil || size < spareBytes {
			t.Errorf("%.10s: the spare file has %d bytes, error %v", name, size, err)
		}
	}
	if err := p.spare.replace("volumes/missing.json", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing record: error %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = Open(path); err != nil { // it finds the spare file
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
