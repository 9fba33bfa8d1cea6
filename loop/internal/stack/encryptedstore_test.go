package stack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// secretStore is a table that encrypts the file B, as a store.
const secretStore = "secret,,,rw,0 4096 crypt aes-xts-plain64 :64:user:s 0 $B 0"

// A snapshot with an encrypted store has what was written, and otherwise the bytes of its origin,
// while reads and first writes meet each other. The origin can have layers, and so can what is
// above the snapshot.
func TestEncryptedStore(t *testing.T) {
	dir := snapshotDir(t)
	verified, _, arguments := treeIn(t, dir, "0 512 linear $A 0", nil, small)
	plain := fileOf(t, dir, "A")[:512*512]
	for name, tt := range map[string]struct {
		text string
		data []byte // nil for what the device shows at first
		keys []int
	}{
		"over a file":  {secretStore + ";top,,,rw,0 512 snapshot $A /dev/mapper/secret N 8", plain, []int{64}},
		"large chunks": {secretStore + ";top,,,rw,0 512 snapshot $A /dev/mapper/secret N 64", plain, []int{64}},
		"over verity": {
			text: "base,,,ro,0 384 verity 1 $A $A " + arguments + ";" + secretStore + ";top,,,rw,0 384 snapshot /dev/mapper/base /dev/mapper/secret N 16",
			data: verified, keys: []int{64},
		},
		"over another snapshot": {
			text: "low,,,ro,0 512 snapshot $A $C P 8;" + secretStore + ";top,,,rw,0 512 snapshot /dev/mapper/low /dev/mapper/secret N 16",
			keys: []int{64},
		},
		"below a cipher": {
			text: secretStore + ";snap,,,rw,0 512 snapshot $A /dev/mapper/secret N 8;top,,,rw,0 512 crypt aes-xts-plain64 :32:user:t 0 /dev/mapper/snap 0",
			keys: []int{64, 32},
		},
	} {
		t.Run(name, func(t *testing.T) {
			serve(t, dir, "0 512 snapshot $A $C P 8", Options{}, func(b *bed) { b.change(bytes.Clone(plain), 5) })
			for round := range uint64(2) {
				model := bytes.Clone(tt.data)
				serve(t, dir, tt.text, Options{Keys: keysFor(t, tt.keys...)}, func(b *bed) {
					if model == nil {
						model = b.whole()
					}
					b.changeWhileRead(model, round)
				})
				isSecret(t, fileOf(t, dir, "B"), model)
			}
		})
	}
}

func fileOf(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// isSecret checks that no sector of a device is in its store as it is.
func isSecret(t *testing.T, store, device []byte) {
	t.Helper()
	sectors := map[string]bool{}
	for i := 0; i < len(device); i += 512 {
		sectors[string(device[i:i+512])] = true
	}
	used := 0
	zero := make([]byte, 512)
	for i := 0; i < len(store); i += 512 {
		switch sector := store[i : i+512]; {
		case bytes.Equal(sector, zero):
		case sectors[string(sector)]:
			t.Fatalf("sector %d of the store is in clear text", i/512)
		default:
			used++
		}
	}
	if used == 0 {
		t.Error("the store has nothing")
	}
}

// Only a store without metadata can be encrypted, by one line that nothing else uses and that is as
// long as the file.
func TestEncryptedStoreRefused(t *testing.T) {
	dir := snapshotDir(t)
	const top = ";top,,,rw,0 512 snapshot $A /dev/mapper/secret N 8"
	for text, want := range map[string]struct {
		err  error
		text string
	}{
		secretStore + strings.Replace(top, "N", "P", 1):                                                 {errors.ErrUnsupported, "a table as the store, not a file or disk"},
		secretStore + top + " 1 discard_zeroes_cow":                                                     {errors.ErrUnsupported, "a table as the store, not a file or disk"},
		"secret,,,rw,0 4096 linear $B 0" + top:                                                          {errors.ErrUnsupported, "not one line of crypt"},
		strings.Replace(secretStore, "$B 0", "$B 8", 1) + top:                                           {errors.ErrUnsupported, "not one line of crypt"},
		"low,,,rw,0 4096 linear $B 0;" + strings.Replace(secretStore, "$B", "/dev/mapper/low", 1) + top: {errors.ErrUnsupported, "not one line of crypt"},
		strings.Replace(secretStore, "0 4096", "0 4088", 1) + top:                                       {errors.ErrUnsupported, "ends after 4088 sectors"},
		strings.Replace(secretStore, "rw", "ro", 1) + top:                                               {unix.EROFS, "read-only table below a writable one"},
		secretStore + ";low,,,rw,0 512 snapshot $A /dev/mapper/secret N 8;top,,,rw,0 512 snapshot /dev/mapper/low /dev/mapper/secret N 8": {
			unix.EINVAL, "is used 2 times",
		},
	} {
		s, err := open(t, dir, text, &Options{Keys: keysFor(t, 64)})
		if !errors.Is(err, want.err) || err == nil || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: error %v, want %v with %q", text, err, want.err, want.text)
		}
		if err == nil {
			_ = s.Close()
		}
	}
}

// The origin can end within a sector of the encryption. The store then has the whole sector: what the
// origin has of it, and zeroes.
func TestEncryptedStoreOfLargerSectors(t *testing.T) {
	const sectors, rest, chunk = 400, 3, 32 // the last chunk has 16 sectors of the device, and 3 behind it
	const text = "secret,,,rw,0 4096 crypt aes-xts-plain64 :64:user:s 0 $B 0 1 sector_size:4096;top,,,rw,0 400 snapshot $A /dev/mapper/secret N 32"
	for _, first := range []uint64{0, 8} { // behind the start of the last chunk
		dir := snapshotDir(t)
		if err := os.Truncate(filepath.Join(dir, "A"), (sectors+rest)*512); err != nil {
			t.Fatal(err)
		}
		origin := fileOf(t, dir, "A")
		model := bytes.Clone(origin[:sectors*512])
		serve(t, dir, text, Options{Keys: keysFor(t, 64)}, func(b *bed) {
			for _, at := range []uint64{sectors - 16 + first, 8, sectors - 16 + 8 - first} {
				data := bytes.Repeat([]byte{byte(at), 0xaa}, 2048)
				b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 8, Data: data})
				copy(model[at*512:], data)
			}
			if !bytes.Equal(b.whole(), model) {
				t.Error("the device has other bytes")
			}
			last := fileOf(t, dir, "B")[:chunk*512] // the first one that was given out
			b.stack.transfers[0].Decrypt(last, 0)
			want := append(bytes.Clone(model[(sectors-16)*512:]), origin[sectors*512:]...)
			want = append(want, make([]byte, (8-rest)*512)...)
			if !bytes.Equal(last[:len(want)], want) {
				t.Error("the store has other bytes in the last chunk")
			}
		})
	}
}
