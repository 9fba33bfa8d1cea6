package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"runtime/debug"
	"testing"
	"unsafe"
)

// No key and no tweak is left on the stack when a call has returned.
func TestStackIsClean(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a stack that shrinks loses what this test looks for
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		if impl == generic {
			t.Skip("crypto/aes promises nothing about the stack")
		}
		key := newSource(t).bytes(64)
		secrets := make(chan [][]byte)
		go func() { secrets <- secretsOf(key) }() // it ends with this send; its traces are on a stack of its own
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

// secretsOf returns what is not to be found: the key's parts, and the tweaks of
// the first 48 blocks of the first eight sectors.
func secretsOf(key []byte) (secrets [][]byte) {
	for i := 0; i < len(key); i += 16 {
		secrets = append(secrets, key[i:i+16])
	}
	block, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		panic(err) // a key size that the test got wrong
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

// double multiplies a tweak by x as IEEE 1619-2018, 5.2 words it.
func double(tweak []byte) {
	var carry byte
	for i, b := range tweak {
		tweak[i] = b<<1 | carry
		carry = b >> 7
	}
	tweak[0] ^= carry * 0x87
}

// stackBytes is how far below its caller's frame the search goes. The frames
// of Encrypt and its kernels are a few hundred bytes.
const stackBytes = 4096

// growStack has the stack reach well beyond that.
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

// copyStack copies what is below its own frame's first variable, and follows
// the call that it is about immediately, as any other call would write there.
// That is this goroutine's stack, which growStack has made large enough, so the
// reads are of mapped memory that nothing else uses; no pointer to it is kept.
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
