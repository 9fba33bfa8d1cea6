package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// goldenUUID is the UUID in the superblocks of testdata/golden.txt.
const goldenUUID = "00112233-4455-6677-8899-aabbccddeeff"

// A golden is a case of testdata/golden.txt.
type golden struct {
	Params
	salt, root, sum string
}

// goldens reads the cases that veritysetup has formatted (testdata/golden.sh).
func goldens(t testing.TB) []golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	for line := range strings.Lines(string(text)) {
		var g golden
		if _, err := fmt.Sscan(line, &g.Algorithm, &g.DataBlockSize, &g.HashBlockSize, &g.DataBlocks, &g.salt, &g.root, &g.sum); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if g.Salt, err = ParseSalt(g.salt); err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

func (g *golden) String() string {
	return fmt.Sprintf("%s data %d hash %d blocks %d salt %d", g.Algorithm, g.DataBlockSize, g.HashBlockSize, g.DataBlocks, len(g.Salt))
}

// image builds the tree of a case behind a superblock.
func (g *golden) image(t testing.TB) *image {
	t.Helper()
	m := buildImage(t, g.Params, seq(int(g.DataSize())), TreeOffset(0, g.HashBlockSize))
	uuid, err := ParseUUID(goldenUUID)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := (&Superblock{UUID: uuid, Params: g.Params}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.hash) == 0 { // veritysetup also extends the file to the start of the tree
		m.hash = make(area, TreeOffset(0, g.HashBlockSize))
	}
	copy(m.hash, sb)
	return m
}

// Superblock, tree and root hash are those of veritysetup, and verify.
func TestGolden(t *testing.T) {
	all := goldens(t)
	if len(all) < 40 {
		t.Fatalf("%d cases", len(all))
	}
	for _, g := range all {
		m := g.image(t)
		if got := hex.EncodeToString(m.root); got != g.root {
			t.Errorf("%v: root hash %s, want %s", &g, got, g.root)
		}
		if sum := sha256.Sum256(m.hash); hex.EncodeToString(sum[:]) != g.sum {
			t.Errorf("%v: the hash area of %d bytes differs", &g, len(m.hash))
		}
		if bad := m.verify(t); bad != nil {
			t.Errorf("%v: %v", &g, bad)
		}
		s, err := ParseSuperblock(m.hash)
		if err != nil {
			t.Fatal(err)
		}
		if !sameParams(s.Params, g.Params) || s.UUID.String() != goldenUUID {
			t.Errorf("%v: read %+v", &g, s)
		}
		if again, err := s.Bytes(); err != nil || !bytes.Equal(again, m.hash[:SuperblockSize]) {
			t.Errorf("%v: written again it differs: %v", &g, err)
		}
	}
}

// sameParams reports whether the parameters are equal.
func sameParams(a, b Params) bool {
	salts := bytes.Equal(a.Salt, b.Salt)
	return salts && a.Algorithm == b.Algorithm && a.DataBlockSize == b.DataBlockSize &&
		a.HashBlockSize == b.HashBlockSize && a.DataBlocks == b.DataBlocks
}
