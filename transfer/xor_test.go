package transfer

import (
	"bytes"
	"errors"
	"testing"
)

func TestXOR(t *testing.T) {
	key := []byte{1, 2, 3, 4, 5}
	plain := make([]byte, 3*512)
	for i := range plain {
		plain[i] = byte(i * 7)
	}
	x := newTest(t, XOR, key, Options{SectorSize: 512})
	buf := bytes.Clone(plain)
	x.Encrypt(buf, 7)
	for i := range buf {
		// The key starts again at each sector of 512 bytes.
		if want := plain[i] ^ key[i%512%len(key)]; buf[i] != want {
			t.Fatalf("byte %d: %#x, want %#x", i, buf[i], want)
		}
	}
	x.Decrypt(buf, 7)
	if !bytes.Equal(buf, plain) {
		t.Error("decrypted to something else")
	}
}

// newTest returns a transform that the test closes.
func newTest(t testing.TB, name string, key []byte, opts Options) Transfer {
	t.Helper()
	x, err := New(name, newSecret(t, key), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestNewRefuses(t *testing.T) {
	good := Options{SectorSize: 512}
	distinct := func(n int) []byte {
		key := make([]byte, n)
		for i := range key {
			key[i] = byte(i)
		}
		return key
	}
	for _, tt := range []struct {
		what, name string
		key        []byte
		opts       Options
		want       error
	}{
		{"unknown name", "aes-cbc-plain", distinct(32), good, ErrUnknown},
		{"none", None, distinct(32), good, ErrUnknown},
		{"no sector size", AESXTSPlain64, distinct(32), Options{}, ErrOptions},
		{"sectors of 256", AESXTSPlain64, distinct(32), Options{SectorSize: 256}, ErrOptions},
		{"sectors of 1536", AESXTSPlain64, distinct(32), Options{SectorSize: 1536}, ErrOptions},
		{"sectors of 8192", AESXTSPlain64, distinct(32), Options{SectorSize: 8192}, ErrOptions},
		{"iv offset within a sector", AESXTSPlain64, distinct(32), Options{SectorSize: 4096, IVOffset: 4}, ErrOptions},
		{"key of 31", AESXTSPlain64, distinct(31), good, ErrKey},
		{"key of 33", AESXTSPlain64, distinct(33), good, ErrKey},
		{"key of 48", AESXTSPlain64, distinct(48), good, ErrKey},
		{"no key", AESXTSPlain64, nil, good, ErrKey},
		{"equal halves", AESXTSPlain64, append(distinct(32), distinct(32)...), good, ErrKey},
		{"equal halves of 16", AESXTSPlain64, append(distinct(16), distinct(16)...), good, ErrKey},
		{"xor without a key", XOR, nil, good, ErrKey},
		{"xor with a key of 513", XOR, distinct(513), good, ErrKey},
		{"xor with an iv", XOR, distinct(32), Options{SectorSize: 512, IVOffset: 1}, ErrOptions},
		{"xor with large sectors", XOR, distinct(32), Options{SectorSize: 512, IVLargeSectors: true}, ErrOptions},
	} {
		t.Run(tt.what, func(t *testing.T) {
			key := newSecret(t, tt.key)
			if _, err := New(tt.name, key, tt.opts); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if key.mem != nil {
				t.Error("the key is not closed")
			}
		})
	}
	if _, err := New(XOR, nil, good); !errors.Is(err, ErrNoKey) {
		t.Errorf("no secret: error %v", err)
	}
}
