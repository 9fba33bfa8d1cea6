package xts

import (
	"bytes"
	"crypto/aes"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/xts"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// forEachImplementation runs a test with every implementation that this machine
// has, not only with New's choice.
func forEachImplementation(t *testing.T, test func(t *testing.T, impl implementation)) {
	t.Helper()
	forImplementations(t, generic, test)
}

// forOwnImplementations leaves out x/crypto's.
func forOwnImplementations(t *testing.T, test func(t *testing.T, impl implementation)) {
	t.Helper()
	forImplementations(t, generic+1, test)
}

func forImplementations(t *testing.T, first implementation, test func(t *testing.T, impl implementation)) {
	t.Helper()
	for impl := first; impl <= armv8; impl++ {
		t.Run(impl.String(), func(t *testing.T) {
			skipMissing(t, impl)
			test(t, impl)
		})
	}
}

func skipMissing(t testing.TB, impl implementation) {
	t.Helper()
	if lacks := missing(impl); lacks != "" {
		ublktest.MachineLacks(t, lacks)
	}
}

// source is a deterministic stream of test data: math/rand/v2's ChaCha8 with a
// fixed seed, so that a failure can be repeated.
type source struct{ *rand.ChaCha8 }

func newSource(t testing.TB) source {
	var seed [32]byte
	copy(seed[:], t.Name())
	return source{rand.NewChaCha8(seed)}
}

func (s source) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = s.Read(b) // cannot fail
	return b
}

// pair is a cipher under test and the reference cipher, with the same key.
type pair struct {
	*Cipher
	reference *xts.Cipher
}

func newPair(t testing.TB, impl implementation, key []byte) pair {
	t.Helper()
	c, err := newCipher(impl, make([]byte, ScheduleSize), key)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{c, reference}
}

func (p pair) encryptReference(buf []byte, sectorSize int, iv, step uint64) {
	for ; len(buf) > 0; buf = buf[sectorSize:] {
		p.reference.Encrypt(buf[:sectorSize], buf[:sectorSize], iv)
		iv += step
	}
}

func (p pair) decryptReference(buf []byte, sectorSize int, iv, step uint64) {
	for ; len(buf) > 0; buf = buf[sectorSize:] {
		p.reference.Decrypt(buf[:sectorSize], buf[:sectorSize], iv)
		iv += step
	}
}

// sectors are the arguments of one call.
type sectors struct {
	size, count int
	iv, step    uint64
}

// check encrypts and decrypts random data at the given offset from a multiple
// of 64 bytes. It compares the result with the reference, and checks that the
// bytes around the data are unchanged.
func (p pair) check(t testing.TB, src source, s sectors, offset int) {
	t.Helper()
	n := s.size * s.count
	memory := aligned(n + 192)
	_, _ = src.Read(memory)
	start := 64 + offset
	before := bytes.Clone(memory)

	want := bytes.Clone(memory)
	p.encryptReference(want[start:start+n], s.size, s.iv, s.step)
	p.Encrypt(memory[start:start+n:start+n], s.size, s.iv, s.step)
	if i := difference(memory, want); i >= 0 {
		t.Fatalf("Encrypt, %+v, offset %d: differs from byte %d of the data on", s, offset, i-start)
	}
	p.Decrypt(memory[start:start+n:start+n], s.size, s.iv, s.step)
	if i := difference(memory, before); i >= 0 {
		t.Fatalf("Decrypt, %+v, offset %d: differs from byte %d of the data on", s, offset, i-start)
	}
}

// difference returns the first index at which a and b differ, or -1 if they are
// equal.
func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	i := 0
	for a[i] == b[i] {
		i++
	}
	return i
}
