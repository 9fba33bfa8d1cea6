package verity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// veritysetup runs it, and returns its output.
func veritysetup(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("veritysetup"); err != nil {
		ublktest.MachineLacks(t, "veritysetup")
	}
	out, err := exec.Command("veritysetup", args...).CombinedOutput()
	return string(out), err
}

// Whatever the parameters, veritysetup makes the same bytes, accepts ours, and
// refuses them after a change.
func TestVeritysetup(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		var g golden
		g.Algorithm = algorithms[random.IntN(len(algorithms))].name
		g.DataBlockSize = MinBlockSize << random.IntN(6)
		g.HashBlockSize = MinBlockSize << random.IntN(6)
		g.DataBlocks = 1 + random.Uint64N(1<<random.IntN(11))
		g.Salt = make([]byte, random.IntN(MaxSalt+1)>>random.IntN(9))
		for i := range g.Salt {
			g.Salt[i] = byte(random.Uint32())
		}
		t.Run(g.String(), func(t *testing.T) { compareVeritysetup(t, &g) })
	}
}

func compareVeritysetup(t *testing.T, g *golden) {
	m := g.image(t)
	dir := t.TempDir()
	data, theirs, ours := filepath.Join(dir, "data"), filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	write(t, data, m.data)
	write(t, ours, m.hash)
	salt := "-"
	if len(g.Salt) > 0 {
		salt = hex.EncodeToString(g.Salt)
	}
	out, err := veritysetup(t, "format", data, theirs, "--hash", g.Algorithm, "--salt", salt, "--uuid", goldenUUID,
		fmt.Sprint("--data-block-size=", g.DataBlockSize), fmt.Sprint("--hash-block-size=", g.HashBlockSize))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	root := hex.EncodeToString(m.root)
	s := Superblock{Params: g.Params}
	s.UUID, _ = ParseUUID(goldenUUID)
	if text := Describe(&s, m.Tree) + "Root hash:      \t" + root; !strings.Contains(out, text) {
		t.Errorf("description\n%s\nveritysetup's:\n%s", text, out)
	}
	// Without a tree, veritysetup's file ends after at most a page.
	if got, err := os.ReadFile(theirs); err != nil || !bytes.Equal(got, m.hash[:min(len(got), len(m.hash))]) ||
		len(got) != len(m.hash) && (m.Levels() > 0 || len(got) != 4096) {
		t.Errorf("veritysetup's hash area of %d bytes differs from ours of %d, %v", len(got), len(m.hash), err)
	}
	if out, err := veritysetup(t, "verify", data, ours, root); err != nil {
		t.Errorf("veritysetup refuses the tree: %v: %s", err, out)
	}
	m.data[len(m.data)-1] ^= 1
	write(t, data, m.data)
	if out, err := veritysetup(t, "verify", data, ours, root); err == nil || len(m.verify(t)) != 1 {
		t.Errorf("changed data: veritysetup says %v (%s), Verify %v", err, out, m.verify(t))
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
