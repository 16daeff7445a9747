//! Write-ahead-log volumes: on-disk format, group writes, fencing, recovery.
