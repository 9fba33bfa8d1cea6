package statefile

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Names that are not UTF-8 survive being written and read. That matters, because one is
// compared with a disk's name, and the other is opened.
func TestNames(t *testing.T) {
	r := Record{
		Version: version, FileDisk: Disk{Sequence: 3, Name: "vg\xe9", UUID: "LVM-\xff"},
		Files: []File{{Path: "/caf\xe9.img", Disk: Disk{Name: "vg\xe9"}}}, Status: &Status{ID: 1, File: "/caf\xe9.img"},
	}
	data, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(data, 1); got == nil || !reflect.DeepEqual(*got, r) {
		t.Errorf("%s is read as %+v", data, got)
	}
}
