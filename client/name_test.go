package client

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// Names that are not UTF-8 survive the protocol, in each type that has one.
func TestNames(t *testing.T) {
	const name = "/caf\xe9.img"
	stores := []StoreStats{{File: name, Size: 4096}}
	device, stats := Device{File: name, Files: []DeviceFile{{File: name, Inode: 3}}, Stores: stores}, DeviceStats{File: name, Stores: stores}
	request := AddRequest{File: name, Files: []TableFile{{name}}}
	for _, tt := range []struct{ sent, got any }{{&device, &Device{}}, {&stats, &DeviceStats{}}, {&request, &AddRequest{}}} {
		text, err := json.Marshal(tt.sent)
		if err == nil {
			err = json.Unmarshal(text, tt.got)
		}
		if err != nil || !reflect.DeepEqual(tt.got, tt.sent) {
			t.Errorf("%s is read as %+v, error %v", text, tt.got, err)
		}
		if n := strings.Count(string(text), `"file_bytes"`); n != strings.Count(string(text), `"file":`) {
			t.Errorf("%s has %d names in bytes", text, n)
		}
	}
}
