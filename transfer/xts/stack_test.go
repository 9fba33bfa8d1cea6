package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"runtime/debug"
	"testing"
	"unsafe"
)

// After a call returns, the stack contains no key and no tweak.
func TestStackIsClean(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))                   // a stack that shrinks loses the bytes that this test searches
	forOwnImplementations(t, func(t *testing.T, impl implementation) { // crypto/aes promises nothing about the stack
		key := newSource(t).bytes(64)
		secrets := make(chan [][]byte)
		go func() { secrets <- secretsOf(key) }() // it ends with this send; its own stack has its traces
		want := <-secrets
		growStack(1)

		c, err := newCipher(impl, make([]byte, ScheduleSize), key)
		copyStack()
		if err != nil {
			t.Fatal(err)
		}
		checkCopy(t, "New", want)
		buf := make([]byte, 8*528)
		c.Encrypt(buf, 528, 0, 1)
		copyStack()
		checkCopy(t, "Encrypt", want)
		c.Decrypt(buf, 528, 0, 1)
		copyStack()
		checkCopy(t, "Decrypt", want)
	})
}

// secretsOf returns the bytes that the stack must not contain: the parts of the
// key, and the tweaks of the first 48 blocks of the first eight sectors.
func secretsOf(key []byte) (secrets [][]byte) {
	for i := 0; i < len(key); i += 16 {
		secrets = append(secrets, key[i:i+16])
	}
	block, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		panic(err) // the test uses a wrong key size
	}
	for iv := range uint64(8) {
		tweak := binary.LittleEndian.AppendUint64(nil, iv)
		tweak = append(tweak, make([]byte, 8)...)
		block.Encrypt(tweak, tweak)
		for range 48 {
			secrets = append(secrets, bytes.Clone(tweak))
			double(tweak)
		}
	}
	return secrets
}

// double multiplies a tweak by x, in the form of IEEE 1619-2018, 5.2.
func double(tweak []byte) {
	var carry byte
	for i, b := range tweak {
		tweak[i] = b<<1 | carry
		carry = b >> 7
	}
	tweak[0] ^= carry * 0x87
}

// stackBytes is how far the search goes below its caller's frame. The frames of
// Encrypt and its kernels have a few hundred bytes.
const stackBytes = 4096

// growStack makes the stack extend well beyond stackBytes.
//
//go:noinline
func growStack(i int) byte {
	var room [4 * stackBytes]byte
	room[i] = 1
	return room[len(room)-1-i]
}

func checkCopy(t *testing.T, call string, secrets [][]byte) {
	t.Helper()
	if !bytes.Contains(stackCopy[:], stackMark[:]) {
		t.Fatalf("%s: the copy of the stack is not one", call)
	}
	for i, secret := range secrets {
		if at := bytes.Index(stackCopy[:], secret); at >= 0 {
			t.Errorf("%s leaves secret %d on the stack, %d bytes down", call, i, stackBytes-at)
		}
	}
}

var (
	stackCopy [stackBytes]byte
	stackMark = [8]byte{0x5f, 0x3a, 0x11, 0xc8, 0x9e, 0x77, 0x42, 0xd6}
)

// copyStack copies the stack below the first variable of its own frame. It must
// follow immediately after the call under test, because any other call would
// overwrite that part. growStack has made this goroutine's stack large enough,
// so the reads are of mapped memory that nothing else uses. copyStack keeps no
// pointer to it.
//
//go:noinline
func copyStack() {
	mark := stackMark
	top := unsafe.Pointer(&mark)
	for i := range stackBytes - len(mark) {
		stackCopy[stackBytes-len(mark)-1-i] = *(*byte)(unsafe.Add(top, -1-i))
	}
	copy(stackCopy[stackBytes-len(mark):], mark[:])
}
