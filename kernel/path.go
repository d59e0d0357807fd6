package kernel

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxPath  = 256 // components
	maxMount = 64  // mounts crossed
)

// Path builds the path of a struct path, from its dentry up to the root of the
// last mount, as d_path does (fs/d_path.c). With an error comes what was read.
func (k *Kernel) Path(p *Object) (string, error) {
	dentry, vfsmnt := p.Ptr("dentry"), p.Ptr("mnt")
	mntOff, err := k.Offset("mount", "mnt")
	if err := errors.Join(err, p.Err()); err != nil {
		return "", err
	}
	var names []string
	for mounts := 0; len(names) < maxPath && mounts < maxMount; {
		d := k.Object("dentry", dentry)
		mnt := k.Object("mount", vfsmnt-mntOff)
		root, parent := mnt.Field("mnt").Ptr("mnt_root"), d.Ptr("d_parent")
		if err := errors.Join(d.Err(), mnt.Err()); err != nil {
			return joinPath(names), err
		}
		if dentry == root || dentry == parent {
			up := mnt.Ptr("mnt_parent")
			if dentry != root || up == mnt.Addr || up == 0 {
				if dentry != root { // no tree: the dentry's own name is all there is
					names = append(names, dentryName(d))
				}
				return joinPath(names), d.Err()
			}
			dentry, vfsmnt = mnt.Ptr("mnt_mountpoint"), up+mntOff
			mounts++
			if err := mnt.Err(); err != nil {
				return joinPath(names), err
			}
			continue
		}
		names = append(names, dentryName(d))
		dentry = parent
	}
	return joinPath(names), fmt.Errorf("path of more than %d components: damaged", maxPath)
}

func dentryName(d *Object) string {
	return d.Field("d_name").Str("name")
}

// joinPath joins the components of a path that were collected from its end.
func joinPath(names []string) string {
	if len(names) == 0 {
		return "/"
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	return b.String()
}
