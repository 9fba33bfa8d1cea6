package luks

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// These are the passphrases and keys of testdata/README.md.
const (
	first  = "first passphrase"
	second = "second passphrase"
	third  = "third passphrase"

	key32 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	key64 = key32 + "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
)

// An image is a device of size bytes that contains data, followed by zeros.
type image struct {
	data []byte
	size int64
}

func (m image) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= m.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), m.size-offset))
	clear(p[:n])
	if offset < int64(len(m.data)) {
		copy(p[:n], m.data[offset:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// clone returns a copy that can be changed.
func (m image) clone() image { return image{bytes.Clone(m.data), m.size} }

func (m image) read() (*Header, error) { return Read(m, m.size) }

// mustRead reads the header of a volume that must open.
func (m image) mustRead(t testing.TB) (*Header, Volume) {
	t.Helper()
	h, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	v, err := h.Volume()
	if err != nil {
		t.Fatal(err)
	}
	return h, v
}

// unlock returns the key that a passphrase unlocks.
func (m image) unlock(t testing.TB, passphrase string) (string, error) {
	t.Helper()
	h, v := m.mustRead(t)
	key := bytes.Repeat([]byte{0xa5}, v.KeySize)
	err := h.Unlock(m, []byte(passphrase), Limits{}, key)
	if err != nil && !bytes.Equal(key, make([]byte, len(key))) {
		t.Errorf("%v, but the key is not zeroed", err)
	}
	return hex.EncodeToString(key), err
}

// expectKey fails the test unless the passphrase unlocks the key.
func (m image) expectKey(t testing.TB, passphrase, want string) {
	t.Helper()
	if got, err := m.unlock(t, passphrase); err != nil || got != want {
		t.Errorf("passphrase %q: key %s, %v; want %s", passphrase, got, err, want)
	}
}

// load reads a volume of testdata.
func load(t testing.TB, name string, size int64) image {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".img.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return image{data, size}
}

// These are the volumes of testdata.
func luks1Short(t testing.TB) image { return load(t, "luks1-sha256-256", 4<<20) }
func luks1Long(t testing.TB) image  { return load(t, "luks1-sha512-512", 4<<20) }
func luks2(t testing.TB) image      { return load(t, "luks2-argon2id", 2<<20) }
func luks2Large(t testing.TB) image { return load(t, "luks2-4096", 6<<20) }

// fixtureSize is the size of a copy of the header in the LUKS2 volumes.
const fixtureSize = 0x4000

// seal corrects the checksum of a copy of a LUKS2 header.
func seal(b []byte) {
	clear(b[448:512])
	sum := sha256.Sum256(b)
	copy(b[448:], sum[:])
}

// setJSON replaces the JSON text of both copies.
func (m image) setJSON(text []byte) {
	for _, at := range []int{0, fixtureSize} {
		b := m.data[at:][:fixtureSize]
		clear(b[luks2BinarySize:])
		copy(b[luks2BinarySize:], text)
		seal(b)
	}
}

// json returns the JSON text of the first copy.
func (m image) json() []byte {
	text, _, _ := bytes.Cut(m.data[luks2BinarySize:fixtureSize], []byte{0})
	return text
}

// edit changes the metadata of a LUKS2 volume, in both copies.
func (m image) edit(t testing.TB, change func(root node)) image {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(m.json()))
	d.UseNumber()
	var root node
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	change(root)
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	m = m.clone()
	m.setJSON(text)
	return m
}

// A node is an object of metadata that a test changes.
type node map[string]any

// at returns the object at the end of a path.
func (n node) at(path ...string) node {
	for _, name := range path {
		inner, ok := n[name].(map[string]any)
		if !ok {
			panic(name + " is no object in the fixture")
		}
		n = inner
	}
	return n
}

// setSequence sets the sequence id of the copy at an offset.
func (m image) setSequence(at int, id uint64) {
	b := m.data[at:][:fixtureSize]
	binary.BigEndian.PutUint64(b[16:], id)
	seal(b)
}

// expectErr fails the test unless err wraps want and its text is one line.
func expectErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if err != nil && bytes.ContainsAny([]byte(err.Error()), "\n\r\x1b") {
		t.Errorf("error %q is more than one plain line", err)
	}
}
