package statefile

import "testing"

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
