package client

// ServerStatus is the status of the server itself.
type ServerStatus struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Generation is the number of upgrades in the life of the process.
	Generation int `json:"generation"`
	Devices    int `json:"devices"`
	// Resizes says that the kernel can change the size of a device in use (Client.Resize).
	Resizes bool `json:"resizes"`
	// Unrecovered are the devices that the server could not take over from the server
	// before it, and that still wait for a server.
	Unrecovered []Unrecovered `json:"unrecovered"`
}

// Unrecovered is a device that waits for a server.
type Unrecovered struct {
	ID     uint32 `json:"id"`
	Device string `json:"device"` // /dev/ublkbN
	// DiskSequence, FileDevice, FileInode and FileIsDisk are those of Device.
	DiskSequence uint64 `json:"diskseq"`
	FileDevice   string `json:"file_maj:min"`
	FileInode    uint64 `json:"file_inode"`
	FileIsDisk   bool   `json:"file_is_disk"`
	// Files are the files and disks below the tables, for a device of tables.
	Files []DeviceFile `json:"files,omitempty"`
	// NeedsKey is set if the device waits for its key (Client.GiveKey).
	NeedsKey bool   `json:"needs_key"`
	Error    string `json:"error"` // why the server could not take it over
}

// AsDevice returns the device, as far as the server describes it.
func (u *Unrecovered) AsDevice() Device {
	return Device{
		ID: u.ID, Device: u.Device, DiskSequence: u.DiskSequence,
		FileDevice: u.FileDevice, FileInode: u.FileInode, FileIsDisk: u.FileIsDisk, Files: u.Files,
	}
}
