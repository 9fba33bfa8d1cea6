package luks

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"
)

const key4096 = "699da0620ebb5e2dda9901ec8d58a22a09ae9129978d74ea35c34080819155de"

// opening is an image with its volume, its key and passphrases.
type opening struct {
	name   string
	image  image
	volume Volume
	key    string
	opens  []string
	wrong  []string // the first belongs to a removed keyslot
}

func openings(t *testing.T) []opening {
	return []opening{
		{
			"LUKS1, sha256, 256 bits, first keyslot removed", luks1Short(t),
			Volume{
				Version: 1, UUID: "1efeb7a3-bd48-4f2b-9cfb-8a514f4f235c", Cipher: "aes-xts-plain64",
				KeySize: 32, Offset: 2 << 20, Size: 2 << 20, SectorSize: 512,
			},
			key32,
			[]string{second},
			[]string{first, ""},
		},
		{
			"LUKS1, sha512, 512 bits", luks1Long(t),
			Volume{
				Version: 1, UUID: "b6063e94-0177-4c6a-9b7f-2f62f955d2ee", Cipher: "aes-xts-plain64",
				KeySize: 64, Offset: 2 << 20, Size: 2 << 20, SectorSize: 512,
			},
			key64,
			[]string{first},
			[]string{second, first + "\n"},
		},
		{
			"LUKS2, argon2id", luks2(t),
			Volume{
				Version: 2, UUID: "bcf89816-a632-4afa-a7f9-4e6a2b8bf725", Label: "fixture", Cipher: "aes-xts-plain64",
				KeySize: 64, Offset: 1 << 20, Size: 1 << 20, SectorSize: 512,
			},
			key64,
			[]string{first},
			[]string{second},
		},
		{
			"LUKS2, argon2i and pbkdf2-sha512, sectors of 4096, first keyslot removed", luks2Large(t),
			Volume{
				Version: 2, UUID: "cd312e8e-66e1-4575-9704-adba086b7185", Cipher: "aes-xts-plain64",
				KeySize: 32, Offset: 2 << 20, Size: 4 << 20, SectorSize: 4096,
			},
			key4096,
			[]string{second, third},
			[]string{first},
		},
	}
}

func TestUnlock(t *testing.T) {
	for _, test := range openings(t) {
		t.Run(test.name, func(t *testing.T) {
			if _, v := test.image.mustRead(t); v != test.volume {
				t.Errorf("volume\n%+v, want\n%+v", v, test.volume)
			}
			for _, passphrase := range test.opens {
				test.image.expectKey(t, passphrase, test.key)
			}
			for _, passphrase := range test.wrong {
				_, err := test.image.unlock(t, passphrase)
				expectErr(t, err, ErrWrongPassphrase)
			}
		})
	}
}

// Data that cryptsetup encrypted in sectors of 4096 bytes decrypts correctly,
// with sector numbers in units of 512 bytes.
func TestUnlockedKeyDecrypts(t *testing.T) {
	m := luks2Large(t)
	_, v := m.mustRead(t)
	key, err := m.unlock(t, second)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := hex.DecodeString(key)
	c, err := xts.NewCipher(aes.NewCipher, raw)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"the first sector", "and its follower"} {
		data := make([]byte, v.SectorSize)
		at := uint64(i) * uint64(v.SectorSize)
		if _, err := m.ReadAt(data, int64(v.Offset+at)); err != nil {
			t.Fatal(err)
		}
		c.Decrypt(data, data, v.IVOffset+at/512)
		if !bytes.Equal(data, bytes.Repeat([]byte(want), int(v.SectorSize)/len(want))) {
			t.Errorf("sector %d begins with %q", i, data[:32])
		}
	}
}

// Keyslots with high priority are tried first, and keyslots with priority 0
// never.
func TestUnlockPriority(t *testing.T) {
	m := luks2Large(t)
	order := func(m image) (ids []int) {
		h, _ := m.mustRead(t)
		for _, s := range h.slots {
			ids = append(ids, s.id)
		}
		return ids
	}
	if got := order(m); len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Errorf("order %v without priorities, want [1 2]", got)
	}
	preferred := m.edit(t, func(root node) { root.at("keyslots", "2")["priority"] = 2 })
	if got := order(preferred); len(got) != 2 || got[0] != 2 || got[1] != 1 {
		t.Errorf("order %v, want [2 1]", got)
	}
	ignored := m.edit(t, func(root node) { root.at("keyslots", "1")["priority"] = 0 })
	_, err := ignored.unlock(t, second)
	expectErr(t, err, ErrWrongPassphrase)
	ignored.expectKey(t, third, key4096)

	none := ignored.edit(t, func(root node) { root.at("keyslots", "2")["priority"] = 0 })
	_, err = none.unlock(t, third)
	expectErr(t, err, ErrNoKeyslot)
}

// A keyslot for another key (which cryptsetup calls unbound) is not tried.
func TestUnlockUnboundKeyslot(t *testing.T) {
	m := luks2Large(t).edit(t, func(root node) {
		root.at("digests", "0")["keyslots"] = []string{"1"}
		root.at("digests")["1"] = otherDigest("2")
		root.at("keyslots", "2")["key_size"] = 17
	})
	m.expectKey(t, second, key4096)
	_, err := m.unlock(t, third)
	expectErr(t, err, ErrWrongPassphrase)
}

// A keyslot that cannot be tried does not prevent another from opening. The
// error names it if no keyslot opens.
func TestUnlockSkips(t *testing.T) {
	refusals := map[string]func(keyslot node){
		"hash whirlpool":        func(k node) { k.at("af")["hash"] = "whirlpool" },
		"key derivation scrypt": func(k node) { k.at("kdf")["type"] = "scrypt" },
		"cipher twofish-xts":    func(k node) { k.at("area")["encryption"] = "twofish-xts" },
		"key of 48 bytes":       func(k node) { k.at("area")["key_size"] = 48 },
	}
	for text, change := range refusals {
		m := luks2Large(t).edit(t, func(root node) { change(root.at("keyslots", "1")) })
		m.expectKey(t, third, key4096)
		_, err := m.unlock(t, second)
		expectErr(t, err, ErrWrongPassphrase)
		expectErr(t, err, ErrUnsupported)
		if err != nil && !(strings.Contains(err.Error(), "keyslot 1: ") && strings.Contains(err.Error(), text)) {
			t.Errorf("%q does not tell of %q", err, text)
		}
	}
}

// Every byte of the digest counts.
func TestUnlockComparesWholeDigest(t *testing.T) {
	for i := range luks1DigestSize {
		m := luks1Short(t).clone()
		m.data[112+i] ^= 1
		_, err := m.unlock(t, second)
		expectErr(t, err, ErrWrongPassphrase)
	}
}

// If no keyslot can be tried, the error is the reason of the first keyslot, and
// does not mention the passphrase.
func TestUnlockSkipsAll(t *testing.T) {
	m := luks2Large(t).edit(t, func(root node) {
		for _, id := range []string{"1", "2"} {
			root.at("keyslots", id, "af")["hash"] = "whirlpool"
		}
	})
	_, err := m.unlock(t, second)
	expectErr(t, err, ErrUnsupported)
	if errors.Is(err, ErrWrongPassphrase) || err != nil && !strings.Contains(err.Error(), "keyslot 1") {
		t.Errorf("%v, want the reason of keyslot 1", err)
	}
}

func TestUnlockKeyOfAnotherSize(t *testing.T) {
	h, _ := luks1Short(t).mustRead(t)
	for _, size := range []int{0, 16, 64} {
		err := h.Unlock(luks1Short(t), []byte(second), Limits{}, make([]byte, size))
		if err == nil || !strings.Contains(err.Error(), "the key has 32 bytes") {
			t.Errorf("room for %d bytes: %v", size, err)
		}
	}
}

// A brokenReader fails at an offset and beyond.
type brokenReader struct {
	io.ReaderAt
	from int64
}

var errMedium = errors.New("medium error")

func (r brokenReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset+int64(len(p)) > r.from {
		return 0, errMedium
	}
	return r.ReaderAt.ReadAt(p, offset)
}

// The error wraps the reader's error.
func TestReadErrors(t *testing.T) {
	for _, m := range []image{luks1Short(t), luks2(t)} {
		_, err := Read(brokenReader{m, 0}, m.size)
		expectErr(t, err, errMedium)

		h, v := m.mustRead(t)
		err = h.Unlock(brokenReader{m, 0}, []byte(second), Limits{}, make([]byte, v.KeySize))
		expectErr(t, err, errMedium)
		if errors.Is(err, ErrWrongPassphrase) {
			t.Error("wrong passphrase, though none was tried")
		}
		_, err = Read(image{m.data, 500}, m.size)
		expectErr(t, err, io.ErrUnexpectedEOF)
	}
}

// A recorder keeps the buffers that it filled.
type recorder struct {
	io.ReaderAt
	buffers [][]byte
}

func (r *recorder) ReadAt(p []byte, offset int64) (int, error) {
	r.buffers = append(r.buffers, p)
	return r.ReaderAt.ReadAt(p, offset)
}

// A recordingKDF keeps the keys that it derived.
type recordingKDF struct {
	kdf
	keys [][]byte
}

func (k *recordingKDF) derive(passphrase []byte, size int) ([]byte, error) {
	key, err := k.kdf.derive(passphrase, size)
	k.keys = append(k.keys, key)
	return key, err
}

// Key material and derived keys are zero after Unlock returns, also after an
// error.
func TestUnlockWipes(t *testing.T) {
	m := luks1Short(t)
	for _, passphrase := range []string{second, "wrong"} {
		h, v := m.mustRead(t)
		k := &recordingKDF{kdf: h.slots[0].kdf}
		h.slots[0].kdf = k
		r := &recorder{ReaderAt: m}
		_ = h.Unlock(r, []byte(passphrase), Limits{}, make([]byte, v.KeySize))
		if len(k.keys) != 1 || len(r.buffers) != 1 {
			t.Fatalf("%d keys and %d buffers, want one each", len(k.keys), len(r.buffers))
		}
		for _, b := range append(k.keys, r.buffers...) {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("passphrase %q: %d bytes are left as they were", passphrase, len(b))
			}
		}
	}
}

// Unlock does not modify the passphrase.
func TestUnlockKeepsPassphrase(t *testing.T) {
	h, v := luks1Short(t).mustRead(t)
	passphrase := []byte(second)
	if err := h.Unlock(luks1Short(t), passphrase, Limits{}, make([]byte, v.KeySize)); err != nil {
		t.Fatal(err)
	}
	if string(passphrase) != second {
		t.Error("the passphrase has changed")
	}
}
