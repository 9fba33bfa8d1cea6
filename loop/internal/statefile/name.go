package statefile

import (
	"encoding/json"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// plainStatus is Status without its methods.
type plainStatus Status

// statusJSON also has the bytes of a file name that is not UTF-8.
type statusJSON struct {
	plainStatus
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s Status) MarshalJSON() ([]byte, error) {
	return json.Marshal(statusJSON{plainStatus(s), rawname.Bytes(s.File)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Status) UnmarshalJSON(text []byte) error {
	v := statusJSON{plainStatus: plainStatus(*s)}
	err := json.Unmarshal(text, &v)
	*s = Status(v.plainStatus)
	s.File = rawname.Name(s.File, v.FileBytes)
	return err
}

// plainFile is File without its methods.
type plainFile File

// fileJSON also has the bytes of a file name that is not UTF-8.
type fileJSON struct {
	plainFile
	FileBytes []byte `json:"file_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (f File) MarshalJSON() ([]byte, error) {
	return json.Marshal(fileJSON{plainFile(f), rawname.Bytes(f.Path)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *File) UnmarshalJSON(text []byte) error {
	v := fileJSON{plainFile: plainFile(*f)}
	err := json.Unmarshal(text, &v)
	*f = File(v.plainFile)
	f.Path = rawname.Name(f.Path, v.FileBytes)
	return err
}

// plainDisk is Disk without its methods.
type plainDisk Disk

// diskJSON also has the bytes of a device-mapper device's name and UUID, because they
// identify the device.
type diskJSON struct {
	plainDisk
	NameBytes []byte `json:"dm_name_bytes,omitempty"`
	UUIDBytes []byte `json:"dm_uuid_bytes,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (d Disk) MarshalJSON() ([]byte, error) {
	return json.Marshal(diskJSON{plainDisk(d), rawname.Bytes(d.Name), rawname.Bytes(d.UUID)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Disk) UnmarshalJSON(text []byte) error {
	v := diskJSON{plainDisk: plainDisk(*d)}
	err := json.Unmarshal(text, &v)
	*d = Disk(v.plainDisk)
	d.Name, d.UUID = rawname.Name(d.Name, v.NameBytes), rawname.Name(d.UUID, v.UUIDBytes)
	return err
}
