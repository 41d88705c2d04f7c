//! The only `unsafe` of the house: system calls without a safe face in a library we have.
//!
//! Room      `kernel`.
//! Source    ioctl(2), add_key(2), keyctl(2), munlock(2), madvise(2), mallopt(3);
//!           linux/dm-ioctl.h, linux/loop.h.
//! Holds     No request reaches the kernel with a buffer shorter than what the kernel reads or
//!           writes, and none of those here carries a pointer in its buffer.

#![expect(unsafe_code, reason = "none of these calls has a safe face; see each SAFETY")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use crate::code::OwnPages;

/// Length of `struct dm_ioctl`.
pub(crate) const DM_HEAD_LEN: usize = 312;
/// Length of `struct loop_config`.
pub(crate) const LOOP_CONFIG_LEN: usize = 304;
/// Length of `struct loop_info64`.
pub(crate) const LOOP_INFO_LEN: usize = 232;

const DM_TYPE: u32 = 0xfd;
const KEY_SPEC_THREAD_KEYRING: libc::c_long = -1;
const KEYCTL_UNLINK: libc::c_long = 9;
const KEYCTL_INVALIDATE: libc::c_long = 21;

/// Requests of loop devices that carry no buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoopRequest {
    /// On `/dev/loop-control`: the number of a free device.
    GetFree,
    /// Lets go of the file.
    Clear,
    /// Takes the length of the file over.
    SetCapacity,
}

/// One command of the device mapper. The buffer begins with a `struct dm_ioctl`.
///
/// # Errors
/// What the kernel answers; `InvalidInput` when the buffer is not as long as it says.
pub(crate) fn device_mapper(control: &File, command: u8, buffer: &mut [u8]) -> io::Result<()> {
    let claimed = buffer.get(12..16).and_then(|len| <[u8; 4]>::try_from(len).ok());
    let claimed = claimed.map(|len| u64::from(u32::from_ne_bytes(len)));
    if buffer.len() < DM_HEAD_LEN || claimed != u64::try_from(buffer.len()).ok() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // _IOWR(DM_TYPE, command, struct dm_ioctl)
    let request = (3_u32 << 30) | (312 << 16) | (DM_TYPE << 8) | u32::from(command);
    // SAFETY: `control` is an open file for the length of the call. The kernel reads and writes
    // `data_size` bytes at the pointer, which is the length of `buffer`, as was just compared; it
    // keeps no pointer, and no command has one in its buffer.
    let answer = unsafe {
        libc::ioctl(control.as_raw_fd(), libc::Ioctl::from(request), buffer.as_mut_ptr())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `LOOP_CONFIGURE`.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn configure_loop(device: &File, config: &[u8; LOOP_CONFIG_LEN]) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    // SAFETY: `device` is an open file for the length of the call. The kernel reads 304 bytes, the
    // size of `struct loop_config`, at the pointer, and writes nothing there.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `LOOP_GET_STATUS64`: a `struct loop_info64`.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn loop_status(device: &File) -> io::Result<[u8; LOOP_INFO_LEN]> {
    const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
    let mut info = [0; LOOP_INFO_LEN];
    // SAFETY: `device` is an open file for the length of the call. The kernel writes 232 bytes, the
    // size of `struct loop_info64` and the length of `info`, at the pointer, and keeps none.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}

/// A request of a loop device that takes a number at most.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn loop_request(device: &File, request: LoopRequest) -> io::Result<u32> {
    let number: libc::Ioctl = match request {
        LoopRequest::GetFree => 0x4c82,
        LoopRequest::Clear => 0x4c01,
        LoopRequest::SetCapacity => 0x4c07,
    };
    // SAFETY: `device` is an open file for the length of the call. These requests take their
    // argument by value and ignore it; no memory is touched.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), number, 0_usize) };
    u32::try_from(answer).map_err(|_| io::Error::last_os_error())
}

/// Puts a key of the kind `logon` into the keyring of this thread; its number.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn add_logon_key(name: &CStr, payload: &[u8]) -> io::Result<i32> {
    // SAFETY: add_key(2) reads two strings that end with zero and `payload.len()` bytes, all of
    // which live for the length of the call, and keeps copies of its own.
    let number = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"logon".as_ptr(),
            name.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            KEY_SPEC_THREAD_KEYRING,
        )
    };
    i32::try_from(number).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)
}

/// Takes a key out of the keyring of this thread, and out of use.
pub(crate) fn forget_key(number: i32) {
    let number = libc::c_long::from(number);
    // SAFETY: both operations of keyctl(2) take numbers alone and touch no memory of ours.
    unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_INVALIDATE, number);
        libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, number, KEY_SPEC_THREAD_KEYRING);
    }
}

/// Takes pages of the program's file out of locked memory and out of the process.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn release_pages(pages: OwnPages) -> io::Result<()> {
    let start = pages.start() as *mut libc::c_void;
    // SAFETY: the range is a private mapping of the program's own file that is not writable and, as
    // the kernel said, has no page that differs from the file: what is dropped comes back from the
    // file when it is next used. Nobody makes it writable after the start, and the mapping of a
    // program stays until it ends, so that nothing has changed there since it was listed.
    let answers = unsafe {
        [libc::munlock(start, pages.len()), libc::madvise(start, pages.len(), libc::MADV_DONTNEED)]
    };
    if answers == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fixes from which length on an allocation has pages of its own, and how much the heap keeps at
/// its end, in bytes. Other C libraries than glibc have no such thing.
pub(crate) fn bound_heap(own_pages_len: i32, kept_len: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers under the lock of the allocator, and changes nothing of
    // what is allocated already. A value out of its range is refused and changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, own_pages_len);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept_len);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (own_pages_len, kept_len);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;

    use super::{
        DM_HEAD_LEN, LOOP_CONFIG_LEN, LoopRequest, configure_loop, device_mapper, loop_request,
        loop_status,
    };

    fn null() -> File {
        File::options().read(true).write(true).open("/dev/null").unwrap()
    }

    #[test]
    fn buffers_that_are_not_as_long_as_they_say_do_not_reach_the_kernel() {
        for (len, claimed) in [(0, 0), (15, 15), (311, 311), (312, 313), (312, 311), (400, 312)] {
            let mut buffer = vec![0; len];
            if let Some(field) = buffer.get_mut(12..16) {
                field.copy_from_slice(&u32::to_ne_bytes(claimed));
            }
            let refused = device_mapper(&null(), 0, &mut buffer).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{len} {claimed}");
        }
    }

    /// The requests reach the kernel, which says that this is no such device.
    #[test]
    fn requests_to_another_device_are_an_error_of_the_system() {
        const ENOTTY: i32 = 25;
        let mut buffer = vec![0; DM_HEAD_LEN];
        buffer[12..16].copy_from_slice(&312_u32.to_ne_bytes());
        let refused = device_mapper(&null(), 0, &mut buffer).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(ENOTTY));
        let refused = configure_loop(&null(), &[0; LOOP_CONFIG_LEN]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(ENOTTY));
        assert_eq!(loop_status(&null()).unwrap_err().raw_os_error(), Some(ENOTTY));
        for request in [LoopRequest::GetFree, LoopRequest::Clear, LoopRequest::SetCapacity] {
            let refused = loop_request(&null(), request).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(ENOTTY));
        }
    }
}
