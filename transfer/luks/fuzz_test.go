package luks

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
)

// fuzzSize is the size of the device with a fuzzed header.
const fuzzSize = 8 << 20

// cheap limits the cost of a fuzzed keyslot to almost nothing, for speed.
var cheap = Limits{Memory: 64 << 10, Argon2Work: 64 << 10, PBKDF2Work: 100}

// checkRead reads any header and tries to unlock it. It fails the test if a
// field of the result is impossible.
func checkRead(t *testing.T, m image) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h, err := m.read()
	if err != nil {
		return
	}
	v, err := h.Volume()
	key := make([]byte, v.KeySize)
	unlockErr := h.Unlock(m, []byte(first), cheap, key)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
		t.Errorf("%d bytes allocated", got)
	}
	if err != nil {
		if unlockErr == nil {
			t.Errorf("unlocked, though refused: %v", err)
		}
		return
	}
	size := uint64(m.size)
	if v.Offset == 0 || v.Size == 0 || v.Offset > size || v.Size > size-v.Offset || v.Offset%512 != 0 {
		t.Errorf("data outside of the device: %+v", v)
	}
	if v.SectorSize < 512 || v.SectorSize > 4096 || v.Size%uint64(v.SectorSize) != 0 {
		t.Errorf("sectors: %+v", v)
	}
	if v.Cipher != cipherXTS || v.KeySize != 32 && v.KeySize != 64 {
		t.Errorf("cipher: %+v", v)
	}
	if unlockErr != nil && !bytes.Equal(key, make([]byte, len(key))) {
		t.Error("a key that is not zero comes with an error")
	}
}

// FuzzRead reads arbitrary bytes.
func FuzzRead(f *testing.F) {
	f.Add([]byte{})
	f.Add(luks1Short(f).data[:1024])
	f.Add(luks2(f).data[:2*fixtureSize])
	f.Add(luks2(f).damage(100).data[:2*fixtureSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		checkRead(t, image{data, fuzzSize})
		checkRead(t, image{data, int64(len(data))})
	})
}

// FuzzMetadata reads arbitrary JSON text in an otherwise valid header, so that
// the checksum refuses nothing.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(luks2(f).json())
	f.Add(luks2Large(f).json())
	f.Add(luks2Large(f).edit(f, func(r node) {
		r.at("keyslots", "1")["priority"] = 2
		r.at("segments", "0")["integrity"] = node{"type": "aead"}
		require("online-reencrypt-v2")(r)
	}).json())
	binaryHeader := luks2(f).data[:luks2BinarySize]
	f.Fuzz(func(t *testing.T, json []byte) {
		if len(json) >= fixtureSize-luks2BinarySize {
			return
		}
		b := make([]byte, fixtureSize)
		copy(b, binaryHeader)
		copy(b[luks2BinarySize:], json)
		seal(b)
		checkRead(t, image{b, fuzzSize})
	})
}

// FuzzLUKS1 reads arbitrary numbers and binary fields of a LUKS1 header.
func FuzzLUKS1(f *testing.F) {
	header := luks1Short(f).data[:1024]
	f.Add(uint32(4096), uint32(32), uint32(1000), header[256:304])
	f.Fuzz(func(t *testing.T, payload, keySize, iterations uint32, slot []byte) {
		b := bytes.Clone(header)
		binary.BigEndian.PutUint32(b[104:], payload)
		binary.BigEndian.PutUint32(b[108:], keySize)
		binary.BigEndian.PutUint32(b[164:], iterations)
		copy(b[256:304], slot)
		copy(b[304:352], slot[min(len(slot), 48):])
		checkRead(t, image{b, fuzzSize})
	})
}
