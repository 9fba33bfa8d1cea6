package statefile

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The properties of an earlier device with the number do not stay if a device has none.
func TestPropertiesOfEarlierDevice(t *testing.T) {
	if err := os.MkdirAll(Dir, 0o700); err != nil || unix.Access(Dir, unix.W_OK) != nil {
		ublktest.MachineLacks(t, "root: "+Dir+" belongs to another user")
	}
	const id = 4_000_000_000 // no device has this number
	defer func() {
		if err := Remove(id); err != nil {
			t.Error(err)
		}
	}()
	earlier := Record{Status: &Status{ID: id, FileDevice: "8:1", FileInode: 12}}
	if err := earlier.Write(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(udevPath(id)); err != nil || string(text) != earlier.udevProperties() {
		t.Fatalf("%q, error %v", text, err)
	}
	disk := Record{Status: &Status{ID: id, FileIsDisk: true}}
	if err := disk.Write(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(udevPath(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q, error %v", text, err)
	}
}

func TestUdevProperties(t *testing.T) {
	for want, r := range map[string]*Record{
		"":                         {Status: &Status{}},
		"UBLK_LOOP_INODE=8:1-12\n": {Status: &Status{FileDevice: "8:1", FileInode: 12}},
		"UBLK_LOOP_INODE=0:23-7\nUBLK_LOOP_REF_ENC=my\\x20disk\n":     {Status: &Status{FileDevice: "0:23", FileInode: 7}, Config: Config{Ref: "my disk"}},
		"UBLK_LOOP_REF_ENC=disk\n":                                    {Status: &Status{FileIsDisk: true, FileDevice: "8:0", FileInode: 5}, Config: Config{Ref: "disk"}},
		"UBLK_LOOP_REF_ENC=\\x2f..\\x5c\\x22\\x27\\x24#+-.:=@_9zAü\n": {Status: &Status{}, Config: Config{Ref: `/..\"'$#+-.:=@_9zAü`}},
	} {
		if got := r.udevProperties(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
