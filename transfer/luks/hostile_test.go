package luks

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const huge = "18446744073709551615"

// refusedLUKS2 is a change to the metadata of both copies, so that the second copy cannot
// help, and the resulting error.
type refusedLUKS2 struct {
	what   string // a part of the error
	change func(root node)
	want   error
}

var hostileLUKS2 = []refusedLUKS2{
	{"config", func(r node) { delete(r, "config") }, ErrDamaged},
	{"keyslots", func(r node) { delete(r, "keyslots") }, ErrDamaged},
	{"keyslots", func(r node) { r["keyslots"] = []int{} }, ErrDamaged},
	{"digests", func(r node) { delete(r, "digests") }, ErrDamaged},
	{"segments", func(r node) { r["segments"] = nil }, ErrDamaged},
	{"0 data segments", func(r node) { r["segments"] = node{}; digest0("segments", []string{})(r) }, ErrUnsupported},

	{"JSON area of", func(r node) { r.at("config")["json_size"] = "16384" }, ErrDamaged},
	{"json_size", func(r node) { r.at("config")["json_size"] = 12288 }, ErrDamaged},
	{"keyslots area of", func(r node) { r.at("config")["keyslots_size"] = huge }, ErrDamaged},
	{"keyslots area of", func(r node) { r.at("config")["keyslots_size"] = "18446744073709547520" }, ErrDamaged},
	{"keyslots area of", func(r node) { r.at("config")["keyslots_size"] = "524289" }, ErrDamaged},
	{"keyslots area of", func(r node) { r.at("config")["keyslots_size"] = "1019904" }, ErrDamaged},

	{"keyslot 0 lies outside", area0("offset", "0"), ErrDamaged},
	{"keyslot 0 lies outside", area0("offset", "28672"), ErrDamaged},
	{"keyslot 0 lies outside", area0("offset", "557056"), ErrDamaged},
	{"keyslot 0 lies outside", area0("offset", huge), ErrDamaged},
	{"keyslot 0 lies outside", area0("offset", "18446744073709551104"), ErrDamaged},
	{"keyslot 0 lies outside", area0("size", huge), ErrDamaged},
	{"keyslot 0 lies outside", area0("size", "524800"), ErrDamaged},
	{"keyslot 0 has", area0("size", "255999"), ErrDamaged},
	{"keyslot 0 has", area0("size", "0"), ErrDamaged},
	{"keyslot 0 has", area0("offset", "32769"), ErrDamaged},
	{"area.offset", area0("offset", "-1"), ErrDamaged},
	{"area.offset", area0("offset", "+32768"), ErrDamaged},
	{"area.offset", area0("offset", "0x8000"), ErrDamaged},
	{"area.offset", area0("offset", "3_2768"), ErrDamaged},
	{"area.offset", area0("offset", "18446744073709551616"), ErrDamaged},
	{"area.offset", area0("offset", 32768), ErrDamaged},
	{"area.key_size", area0("key_size", -1), ErrDamaged},
	{"area.key_size", area0("key_size", 1.5), ErrDamaged},
	{"area.key_size", area0("key_size", "64"), ErrDamaged},
	{"lies outside", func(r node) {
		k := r.at("keyslots")
		k["1"] = k["0"]
		r.at("digests", "0")["keyslots"] = []string{"0", "1"}
	}, ErrDamaged},

	{"keyslots.x", func(r node) { r.at("keyslots")["x"] = node{"type": "other"} }, ErrDamaged},
	{"keyslots.32", func(r node) { r.at("keyslots")["32"] = node{"type": "other"} }, ErrDamaged},
	{"keyslots.00", func(r node) { r.at("keyslots")["00"] = node{"type": "other"} }, ErrDamaged},
	{"keyslots.-1", func(r node) { r.at("keyslots")["-1"] = node{"type": "other"} }, ErrDamaged},
	{"type", func(r node) { delete(r.at("keyslots", "0"), "type") }, ErrDamaged},
	{"type", func(r node) { r.at("keyslots", "0")["TYPE"] = "luks2"; delete(r.at("keyslots", "0"), "type") }, ErrDamaged},
	{"key of 48 bytes", slot0("key_size", 48), ErrUnsupported},
	{"key of 4294967295 bytes", slot0("key_size", uint64(1<<32-1)), ErrUnsupported},
	{"key_size", slot0("key_size", "64"), ErrDamaged},
	{"keyslots.0.priority: not 0, 1 or 2", slot0("priority", 3), ErrDamaged},
	{"stripes", func(r node) { r.at("keyslots", "0", "af")["stripes"] = 4001 }, ErrDamaged},
	{"stripes", func(r node) { r.at("keyslots", "0", "af")["stripes"] = 0 }, ErrDamaged},

	{"argon2id with 0 passes", kdf0("time", 0), ErrDamaged},
	{"argon2id with", kdf0("memory", 15), ErrDamaged},
	{"argon2id with", kdf0("cpus", 0), ErrDamaged},
	{"salt of 1 bytes", kdf0("salt", "AA=="), ErrDamaged},
	{"salt: not Base64", kdf0("salt", "?"), ErrDamaged},
	{"kdf.time", kdf0("time", 1e99), ErrDamaged},
	{"kdf.memory", kdf0("memory", nil), ErrDamaged},

	{"3 digests", func(r node) { d := r.at("digests"); d["1"], d["2"] = d["0"], d["0"] }, ErrDamaged},
	{"0 digests", func(r node) { r.at("digests", "0")["segments"] = []string{} }, ErrDamaged},
	{"digest: an empty string", digest0("digest", ""), ErrDamaged},
	{"digest: 19 bytes", digest0("digest", base64.StdEncoding.EncodeToString(make([]byte, 19))), ErrDamaged},
	{"pbkdf2 with 0", digest0("iterations", 0), ErrDamaged},
	{"hash md5", digest0("hash", "md5"), ErrUnsupported},
	{"digest of type sha", digest0("type", "sha"), ErrUnsupported},
	{"keyslots: not an array", digest0("keyslots", "0"), ErrDamaged},
	{ErrNoKeyslot.Error(), slot0("type", "luks3"), ErrNoKeyslot},

	{"cipher serpent-xts-plain64: only aes-xts-plain64", segment0("encryption", "serpent-xts-plain64"), ErrUnsupported},
	{"cipher aes-cbc-essiv:sha256:", segment0("encryption", "aes-cbc-essiv:sha256"), ErrUnsupported},
	{"cipher aes-xts-benbi:", segment0("encryption", "aes-xts-benbi"), ErrUnsupported},
	{`cipher "\x1b[2J`, segment0("encryption", "\x1b[2J"+strings.Repeat("x", 5000)), ErrUnsupported},
	{"cipher \"xxx", segment0("encryption", strings.Repeat("x", 5000)), ErrUnsupported},
	{"segment of type linear", segment0("type", "linear"), ErrUnsupported},
	{"integrity", segment0("integrity", node{"type": "hmac(sha256)"}), ErrUnsupported},
	{"sector size 520", segment0("sector_size", 520), ErrUnsupported},
	{"sector size 8192", segment0("sector_size", 8192), ErrUnsupported},
	{"sector size 0", segment0("sector_size", 0), ErrUnsupported},
	{"in sectors of 512", segment0("offset", "1048577"), ErrDamaged},
	{"in sectors of 512", segment0("size", "513"), ErrDamaged},
	{"size: zero", segment0("size", "0"), ErrDamaged},
	{"size: not a decimal", segment0("size", "Dynamic"), ErrDamaged},
	{"detached header", segment0("offset", "0"), ErrUnsupported},
	{"keyslots area of", segment0("offset", "512"), ErrDamaged},
	{"keyslots area of", segment0("offset", "556544"), ErrDamaged},
	{ErrTooSmall.Error(), segment0("offset", "18446744073709551104"), ErrTooSmall},
	{ErrTooSmall.Error(), segment0("offset", "2097152"), ErrTooSmall},
	{ErrTooSmall.Error(), segment0("size", "1049088"), ErrTooSmall},
	{ErrTooSmall.Error(), segment0("size", "18446744073709551104"), ErrTooSmall},
	{"in sectors of 4096", func(r node) { r.at("segments", "0")["sector_size"] = 4096; segment0("iv_tweak", "4")(r) }, ErrDamaged},
	{"in sectors of 4096", func(r node) { r.at("segments", "0")["sector_size"] = 4096; segment0("size", "512")(r) }, ErrDamaged},
	{"2 data segments", func(r node) { s := r.at("segments"); s["1"] = s["0"] }, ErrUnsupported},

	{"reencryption", require("online-reencrypt-v2"), ErrUnsupported},
	{"reencryption", require("online-reencrypt"), ErrUnsupported},
	{"reencryption", require("online-reencrypt-v9", "later"), ErrUnsupported},
	{"reencryption", require("offline-reencrypt"), ErrUnsupported},
	{"requirement inline-hw-tags", require("inline-hw-tags"), ErrUnsupported},
	{"requirement later", func(r node) { r.at("config")["requirements"] = []string{"later"} }, ErrUnsupported},
	{"config.requirements", func(r node) { r.at("config")["requirements"] = "later" }, ErrDamaged},
	{"config.requirements", func(r node) { r.at("config")["requirements"] = nil }, ErrDamaged},
	{"mandatory", func(r node) { r.at("config")["requirements"] = node{"mandatory": 1} }, ErrDamaged},
	{"reencryption", func(r node) { r.at("keyslots")["1"] = node{"type": "reencrypt"} }, ErrUnsupported},
}

// The metadata is well-formed, its checksum is correct, and its content is wrong.
func TestReadHostileLUKS2(t *testing.T) {
	for _, test := range hostileLUKS2 {
		_, err := refusal(luks2(t).edit(t, test.change))
		expectErr(t, err, test.want)
		if err != nil && !strings.Contains(err.Error(), test.what) || err != nil && len(err.Error()) > 400 {
			t.Errorf("%.500q does not tell of %q", err.Error(), test.what)
		}
	}
}

// All keyslots of a segment hold keys of the same size.
func TestReadKeysOfTwoSizes(t *testing.T) {
	_, err := luks2Large(t).edit(t, func(r node) { r.at("keyslots", "2")["key_size"] = 64 }).read()
	expectErr(t, err, ErrDamaged)
	if err != nil && !strings.Contains(err.Error(), "keyslots.2.key_size") {
		t.Errorf("%q does not tell of keyslot 2", err)
	}
}

// refusal returns the error of Read or of Volume, and checks that Unlock
// returns the same error.
func refusal(m image) (Volume, error) {
	h, err := m.read()
	if err != nil {
		return Volume{}, err
	}
	v, err := h.Volume()
	if unlock := h.Unlock(m, nil, Limits{PBKDF2Work: 1, Argon2Work: 1}, make([]byte, 64)); !errors.Is(unlock, err) && err != nil {
		return v, fmt.Errorf("volume: %w, but unlock: %w", err, unlock)
	}
	return v, err
}

func slot0(name string, value any) func(node) {
	return func(root node) { root.at("keyslots", "0")[name] = value }
}

func area0(name string, value any) func(node) {
	return func(root node) { root.at("keyslots", "0", "area")[name] = value }
}

func kdf0(name string, value any) func(node) {
	return func(root node) { root.at("keyslots", "0", "kdf")[name] = value }
}

func digest0(name string, value any) func(node) {
	return func(root node) { root.at("digests", "0")[name] = value }
}

func segment0(name string, value any) func(node) {
	return func(root node) { root.at("segments", "0")[name] = value }
}

func require(names ...string) func(node) {
	return func(root node) { root.at("config")["requirements"] = node{"mandatory": append([]string{}, names...)} }
}

// These headers differ from the fixtures and are valid.
func TestReadUnusualLUKS2(t *testing.T) {
	tests := map[string]func(root node){
		"a token not ours":   func(r node) { r.at("tokens")["0"] = node{"type": "other", "keyslots": []string{"0"}} },
		"no requirements":    require(),
		"empty requirements": func(r node) { r.at("config")["requirements"] = node{} },
		"data right after":   func(r node) { r.at("config")["keyslots_size"] = "1015808" },
		"keyslot to the end": area0("size", "524288"),
		"a keyslot not ours": otherKeyslot(nil),
		"unknown flags":      func(r node) { segment0("flags", []string{"x"})(r); r.at("config")["flags"] = []string{"y"} },
		"a size":             segment0("size", "1048576"),
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			m := luks2(t).edit(t, change)
			if _, v := m.mustRead(t); v.Size != 1<<20 {
				t.Errorf("%+v", v)
			}
			m.expectKey(t, first, key64)
		})
	}
	m := luks2(t).edit(t, func(r node) { segment0("size", "4096")(r); segment0("iv_tweak", "81")(r) })
	if _, v := m.mustRead(t); v.Size != 4096 || v.IVOffset != 81 {
		t.Errorf("%+v, want 4096 bytes and 81", v)
	}
}

// A dynamic size excludes an incomplete last sector.
func TestVolumeSizeInWholeSectors(t *testing.T) {
	for add, want := range map[int64]uint64{0: 4 << 20, 4095: 4 << 20, 4096: 4<<20 + 4096} {
		m := luks2Large(t)
		m.size += add
		if _, v := m.mustRead(t); v.Size != want {
			t.Errorf("%d bytes more: %d, want %d", add, v.Size, want)
		}
	}
	for _, m := range []image{luks1Short(t), luks2Large(t)} {
		for _, size := range []int64{2 << 20, 2<<20 + 511, 1 << 20, 32 << 10} {
			_, err := refusal(image{m.data, size})
			expectErr(t, err, ErrTooSmall)
		}
	}
}

// The error of a volume that does not fit says where the data is and how large the device is.
func TestVolumeDoesNotFit(t *testing.T) {
	for _, tt := range []struct {
		size uint64
		want string
	}{
		{0, "no data at 8192, the device has 8703 bytes"},
		{512, "512 bytes of data at 8192, the device has 8703"},
	} {
		v := Volume{Offset: 8192, Size: tt.size, SectorSize: 512}
		err := v.fit(8703)
		expectErr(t, err, ErrTooSmall)
		if err != nil && !strings.HasSuffix(err.Error(), ": "+tt.want) {
			t.Errorf("%q does not end with %q", err, tt.want)
		}
	}
}

// LUKS1 headers have no checksum, so the test corrupts each field separately.
func TestReadHostileLUKS1(t *testing.T) {
	const slot, unused = 208 + 48, 208 + 7*48 // the active keyslot, and the last one
	put := func(at int, value uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], value) }
	}
	text := func(at int, s string) func([]byte) { return func(b []byte) { copy(b[at:], s+"\x00") } }
	tests := []struct {
		what   string
		change func([]byte)
		want   error
	}{
		{"LUKS version 0", func(b []byte) { b[7] = 0 }, ErrUnsupported},
		{"LUKS version 257", func(b []byte) { b[6] = 1 }, ErrUnsupported},
		{"cipher serpent-xts-plain64:", text(8, "serpent"), ErrUnsupported},
		{"cipher aes-cbc-essiv:sha256:", text(40, "cbc-essiv:sha256"), ErrUnsupported},
		{"a string does not end", text(8, strings.Repeat("a", 32)), ErrDamaged},
		{"a string does not end", text(40, strings.Repeat("a", 32)), ErrDamaged},
		{"a string does not end", text(72, strings.Repeat("a", 32)), ErrDamaged},
		{"a string does not end", text(168, strings.Repeat("a", 40)), ErrDamaged},
		{"hash whirlpool", text(72, "whirlpool"), ErrUnsupported},
		{"detached", put(104, 0), ErrUnsupported},
		{ErrTooSmall.Error(), put(104, 1<<32-1), ErrTooSmall},
		{ErrTooSmall.Error(), put(104, 8192), ErrTooSmall},
		{"key of 16 bytes", put(108, 16), ErrUnsupported},
		{"key of 4294967295 bytes", put(108, 1<<32-1), ErrUnsupported},
		{"pbkdf2 with 0", put(164, 0), ErrDamaged},
		{"state", put(slot, 1), ErrDamaged},
		{"keyslot 1: LUKS header damaged: pbkdf2 with 0", put(slot+4, 0), ErrDamaged},
		{"lies outside", put(slot+40, 0), ErrDamaged},
		{"lies outside", put(slot+40, 1), ErrDamaged},
		{"lies outside", put(slot+40, 1<<32-1), ErrDamaged},
		{"lies outside", put(slot+40, 4096-249), ErrDamaged},
		{"lies outside", put(104, 264+249), ErrDamaged},
		{"stripes", put(slot+44, 3999), ErrDamaged},
		{"stripes", put(slot+44, 1<<32-1), ErrDamaged},
		{ErrNoKeyslot.Error(), put(slot, luks1Inactive), ErrNoKeyslot},
		{"lies outside", func(b []byte) { copy(b[slot+48:], b[slot:slot+48]) }, ErrDamaged},
		{"keyslot 7: LUKS header damaged: 3999 stripes", put(unused+44, 3999), ErrDamaged},
		{"keyslot 7 lies outside", put(unused+40, 0), ErrDamaged},
		{"keyslot 7 lies outside", put(unused+40, 4096-249), ErrDamaged},
		{"keyslot 7 lies outside", func(b []byte) { copy(b[unused+40:unused+44], b[slot+40:]) }, ErrDamaged},
	}
	for _, test := range tests {
		m := luks1Short(t).clone()
		test.change(m.data)
		_, err := refusal(m)
		expectErr(t, err, test.want)
		if err != nil && !strings.Contains(err.Error(), test.what) {
			t.Errorf("%q does not tell of %q", err, test.what)
		}
	}
	m := luks1Short(t).clone()
	put(slot+40, 4096-250)(m.data) // the last offset at which it fits
	m.mustRead(t)
}

// A refused header still returns its descriptive fields, in printable form.
func TestVolumeOfRefused(t *testing.T) {
	m := luks2(t).edit(t, segment0("encryption", "serpent-xts-plain64"))
	v, err := refusal(m)
	expectErr(t, err, ErrUnsupported)
	if v.Version != 2 || v.Label != "fixture" || v.UUID == "" || v.Cipher != "serpent-xts-plain64" {
		t.Errorf("%+v", v)
	}
	m = luks1Short(t).clone()
	copy(m.data[168:], "\x1b]0;owned\a\n\x00")
	_, v = m.mustRead(t)
	if strings.ContainsAny(v.UUID, "\x1b\a\n") {
		t.Errorf("UUID %q", v.UUID)
	}
}
