package client

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// A file name need not be UTF-8. For other names, the types with a member file have a
// second member, file_bytes (docs/json.md). Go programs see only File.

// plainDevice is Device without its methods.
type plainDevice Device

type deviceJSON struct {
	plainDevice
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (d Device) MarshalJSON() ([]byte, error) {
	return marshal(deviceJSON{plainDevice(d), rawname.Bytes(d.File)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Device) UnmarshalJSON(text []byte) error {
	v := deviceJSON{plainDevice: plainDevice(*d)}
	err := json.Unmarshal(text, &v)
	*d = Device(v.plainDevice)
	d.File = rawname.Name(d.File, v.FileBytes)
	return err
}

// newDevice is Device with another UnmarshalJSON, for the one device that a request makes.
type newDevice Device

// UnmarshalJSON implements json.Unmarshaler.
func (d *newDevice) UnmarshalJSON(text []byte) error {
	members, err := setMembers(reflect.ValueOf(d).Elem(), text)
	if raw := members["file_bytes"]; err == nil && raw != nil {
		var name []byte
		err = json.Unmarshal(raw, &name)
		d.File = rawname.Name(d.File, name)
	}
	return err
}

// plainDeviceFile is DeviceFile without its methods.
type plainDeviceFile DeviceFile

type deviceFileJSON struct {
	plainDeviceFile
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (f DeviceFile) MarshalJSON() ([]byte, error) {
	return marshal(deviceFileJSON{plainDeviceFile(f), rawname.Bytes(f.File)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *DeviceFile) UnmarshalJSON(text []byte) error {
	v := deviceFileJSON{plainDeviceFile: plainDeviceFile(*f)}
	err := json.Unmarshal(text, &v)
	*f = DeviceFile(v.plainDeviceFile)
	f.File = rawname.Name(f.File, v.FileBytes)
	return err
}

// plainTableFile is TableFile without its methods.
type plainTableFile TableFile

type tableFileJSON struct {
	plainTableFile
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (f TableFile) MarshalJSON() ([]byte, error) {
	return marshal(tableFileJSON{plainTableFile(f), rawname.Bytes(f.File)})
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown members, as that of AddRequest
// does.
func (f *TableFile) UnmarshalJSON(text []byte) error {
	v := tableFileJSON{plainTableFile: plainTableFile(*f)}
	err := strictly(text, &v)
	*f = TableFile(v.plainTableFile)
	f.File = rawname.Name(f.File, v.FileBytes)
	return err
}

// plainDeviceStats is DeviceStats without its methods.
type plainDeviceStats DeviceStats

type deviceStatsJSON struct {
	plainDeviceStats
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s DeviceStats) MarshalJSON() ([]byte, error) {
	return marshal(deviceStatsJSON{plainDeviceStats(s), rawname.Bytes(s.File)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *DeviceStats) UnmarshalJSON(text []byte) error {
	v := deviceStatsJSON{plainDeviceStats: plainDeviceStats(*s)}
	err := json.Unmarshal(text, &v)
	*s = DeviceStats(v.plainDeviceStats)
	s.File = rawname.Name(s.File, v.FileBytes)
	return err
}

// plainStoreStats is StoreStats without its methods.
type plainStoreStats StoreStats

type storeStatsJSON struct {
	plainStoreStats
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s StoreStats) MarshalJSON() ([]byte, error) {
	return marshal(storeStatsJSON{plainStoreStats(s), rawname.Bytes(s.File)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *StoreStats) UnmarshalJSON(text []byte) error {
	v := storeStatsJSON{plainStoreStats: plainStoreStats(*s)}
	err := json.Unmarshal(text, &v)
	*s = StoreStats(v.plainStoreStats)
	s.File = rawname.Name(s.File, v.FileBytes)
	return err
}

// plainAddRequest is AddRequest without its methods.
type plainAddRequest AddRequest

type addRequestJSON struct {
	plainAddRequest
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler. It leaves out members that are zero, which is their default.
func (r AddRequest) MarshalJSON() ([]byte, error) {
	members := membersOf(reflect.ValueOf(r))
	if raw := rawname.Bytes(r.File); raw != nil {
		members["file_bytes"] = raw
	}
	return marshal(members)
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown members, because only a
// server reads requests, and a member that it does not know would have no effect.
func (r *AddRequest) UnmarshalJSON(text []byte) error {
	v := addRequestJSON{plainAddRequest: plainAddRequest(*r)}
	err := strictly(text, &v)
	*r = AddRequest(v.plainAddRequest)
	r.File = rawname.Name(r.File, v.FileBytes)
	return err
}

// strictly is json.Unmarshal that refuses unknown members.
func strictly(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// marshal is json.Marshal without the escapes for <, > and &. The encoder of the whole
// text adds them if it has to.
func marshal(v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return text.Bytes(), err
}
