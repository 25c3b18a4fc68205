package PVE::Storage::Custom::S3fsxPlugin;

# The storage type "s3fsx" of Proxmox VE 8 and 9: a bucket, mounted by s3fsx, used as a directory.
#
#   cp S3fsxPlugin.pm /usr/share/perl5/PVE/Storage/Custom/ && systemctl restart pvedaemon pveproxy pvestatd
#   pvesm add s3fsx NAME --bucket BUCKET --endpoint https://s3.example.com ...
#
# It is thin on purpose: Proxmox' DirPlugin does everything with files, s3fsx everything with S3. This one keeps the keys in
# /etc/pve/priv/storage/NAME.s3fsx, writes /etc/s3fsx/NAME.toml on each node from storage.cfg, and starts and stops the
# unit s3fsx@NAME. The unit is never enabled: Proxmox activates a storage before every use, and pvestatd every 10 s.
#
# Nothing here waits for the store. pvestatd calls activate_storage and status of all storages in one process, so that a
# mount whose daemon does not answer on its status socket is never touched: a stat in it could not be killed.

use strict;
use warnings;

use Digest::SHA ();
use File::Path ();
use IO::Select ();
use IO::Socket::UNIX ();
use JSON::PP ();
use Time::HiRes ();

use PVE::ProcFSTools;
use PVE::Storage::DirPlugin;
use PVE::Storage::Plugin;
use PVE::Tools qw(run_command);

use base qw(PVE::Storage::DirPlugin);

push @PVE::Storage::Plugin::SHARED_STORAGE, 's3fsx';

our $PRIV_DIR = '/etc/pve/priv/storage';
our $CONFIG_DIR = '/etc/s3fsx';
our $UNIT_DIR = '/etc/systemd/system';
our $RUNTIME_DIR = '/run/s3fsx';
our $MOUNTS = '/mnt/pve'; # of the unit s3fsx@.service

my $ANSWER_LIMIT = 2; # seconds for the status socket, which answers from memory
my $MOUNT_LIMIT = 8; # seconds that an activation waits for the mount; the unit goes on trying
my $STOP_LIMIT = 780; # the unit's TimeoutStopSec is 720: everything is published first
my $LIFECYCLE_LIMIT = 40; # within the 60 s of the storage configuration's lock

my @KEYS = qw(access_key secret_key);

# Names of storage.cfg that s3fsx knows under the same name (docs/CONFIGURATION.md, "Other names").
my @SETTINGS = qw(bucket endpoint region prefix storage_class server_side_encryption kms_key_id multipart_chunk_size
    max_concurrent_uploads connection_timeout);

# --- what Proxmox asks about the type

sub api {
    # 10: PVE 8.0; 11: 8.4; 12 and 13: PVE 9. All calls used here are the same in these. Newer ones are for Proxmox to
    # judge, by its APIAGE.
    my $newest = 13;
    my $here = PVE::Storage->can('APIVER') ? PVE::Storage::APIVER() : $newest;
    return $here < $newest ? $here : $newest;
}

sub type {
    return 's3fsx';
}

sub plugindata {
    return {
	content => [
	    { backup => 1, iso => 1, vztmpl => 1, snippets => 1, import => 1, none => 1 },
	    { backup => 1 },
	],
	format => [ { raw => 1, qcow2 => 1, vmdk => 1 }, 'raw' ],
	'sensitive-properties' => { map { $_ => 1 } @KEYS },
    };
}

my $PROPERTIES = {
    endpoint => {
	description => "URL of the S3 service, such as https://s3.example.com:9000. Without it Amazon, by region.",
	type => 'string',
	maxLength => 256,
    },
    bucket => { description => "The bucket. It must exist.", type => 'string', maxLength => 255 },
    region => { description => "The region that requests are signed for.", type => 'string', maxLength => 64 },
    prefix => { description => "Keys of this storage start with it.", type => 'string', maxLength => 512 },
    access_key => { description => "Access key id.", type => 'string', maxLength => 256 },
    secret_key => { description => "Secret access key.", type => 'string', maxLength => 1024 },
    storage_class => { description => "Class of new objects.", type => 'string', maxLength => 64 },
    server_side_encryption => {
	description => "Encryption by the store.",
	type => 'string',
	enum => [ 'AES256', 'aws:kms' ],
    },
    kms_key_id => { description => "KMS key, for aws:kms.", type => 'string', maxLength => 2048 },
    multipart_chunk_size => {
	description => "Size of the first parts of an upload, in MiB.",
	type => 'integer',
	minimum => 5,
	maximum => 5120,
	default => 8,
    },
    max_concurrent_uploads => {
	description => "Parts sent at the same time, at most.",
	type => 'integer',
	minimum => 1,
	maximum => 64,
	default => 16,
    },
    connection_timeout => {
	description => "Seconds to reach the endpoint.",
	type => 'integer',
	minimum => 1,
	maximum => 300,
	default => 5,
    },
    lifecycle_enabled => {
	description => "Write lifecycle rules for the backups into the bucket.",
	type => 'boolean',
	default => 0,
    },
    transition_days => {
	description => "Age at which backups become STANDARD_IA.",
	type => 'integer',
	minimum => 1,
	maximum => 36500,
    },
    glacier_days => {
	description => "Age at which backups may become GLACIER; never protected ones and the newest.",
	type => 'integer',
	minimum => 1,
	maximum => 36500,
    },
};

# Properties are common to all types, and Proxmox dies, with every storage, when two plugins declare one. Another S3 plugin
# may be installed: what it has declared is used as it is.
sub properties {
    my ($class) = @_;

    my $mine = { %$PROPERTIES };
    my $plugins = PVE::Storage::Plugin->private()->{plugins} // {};
    for my $type (keys %$plugins) {
	next if $type eq type() || $plugins->{$type} eq $class;
	my $theirs = eval { $plugins->{$type}->properties() } // {};
	delete $mine->{$_} for keys %$theirs;
    }
    return $mine;
}

sub options {
    my $optional = { optional => 1 };
    return {
	path => { fixed => 1 },
	bucket => { fixed => 1 },
	endpoint => { fixed => 1, optional => 1 },
	prefix => { fixed => 1, optional => 1 },
	map({ $_ => $optional } grep { !/^(?:endpoint|bucket|prefix)$/ } keys %$PROPERTIES),
	map({ $_ => $optional } qw(nodes shared disable content prune-backups max-protected-backups content-dirs
	    format bwlimit preallocation create-base-path create-subdirs)),
    };
}

sub check_config {
    my ($class, $storeid, $config, $create, $skipSchemaCheck) = @_;

    $config->{path} = "$MOUNTS/$storeid" if $create && !$config->{path};
    my $checked = $class->SUPER::check_config($storeid, $config, $create, $skipSchemaCheck);
    my ($ia, $cold) = $checked->@{qw(transition_days glacier_days)};
    die "glacier_days ($cold) has to be more than transition_days ($ia)\n" if $ia && $cold && $cold <= $ia;
    return $checked;
}

# --- hooks: keys, lifecycle

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;

    take_keys($storeid, $scfg, \%sensitive);
    my $added = eval { lifecycle($storeid, $scfg); 1 };
    if (!$added) {
	my $error = $@;
	$class->on_delete_hook($storeid, $scfg);
	die $error;
    }
    return;
}

# Up to API 12: only what changes.
sub on_update_hook {
    my ($class, $storeid, $changes, %sensitive) = @_;

    take_keys($storeid, $changes, \%sensitive);
    warn "storage $storeid: lifecycle rules are as before; run 's3fsx pve lifecycle $storeid'\n"
	if grep { exists $changes->{$_} } qw(lifecycle_enabled transition_days glacier_days);
    return;
}

# From API 13 on: also what was there.
sub on_update_hook_full {
    my ($class, $storeid, $scfg, $changes, $delete, $sensitive) = @_;

    take_keys($storeid, $changes, $sensitive // {});
    my $after = { %$scfg, %$changes };
    delete $after->{$_} for @{ $delete // [] };
    my @mine = qw(lifecycle_enabled transition_days glacier_days);
    lifecycle($storeid, $after, $scfg->{lifecycle_enabled})
	if grep { ($scfg->{$_} // '') ne ($after->{$_} // '') } @mine;
    return;
}

sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;

    # Publishes what is pending, in the background: this runs with the storage configuration locked.
    eval { run_command(['systemctl', 'stop', '--no-block', unit($storeid)], timeout => 10, quiet => 1) };
    warn $@ if $@;
    for my $file (keys_file($storeid), config_file($storeid), drop_in($storeid)) {
	unlink $file or $!{ENOENT} or warn "removing $file failed: $!\n";
    }
    return;
}

# Since API 11 the keys come apart from $scfg; before, they are in it, and have to leave it before it is written into
# storage.cfg, which others than root may read.
sub take_keys {
    my ($storeid, $scfg, $sensitive) = @_;

    my $given = {};
    for my $name (@KEYS) {
	my $there = exists $sensitive->{$name} ? $sensitive->{$name} : $scfg->{$name};
	$given->{$name} = $there if defined $there;
	delete $scfg->{$name};
    }
    if (!%$given) {
	# pvesm set --delete
	return if !grep { exists $sensitive->{$_} } @KEYS;
	unlink keys_file($storeid) or $!{ENOENT} or die "removing the keys failed: $!\n";
	return;
    }
    my $before = -e keys_file($storeid) ? PVE::Tools::file_get_contents(keys_file($storeid)) : '';
    for my $name (@KEYS) {
	next if defined $given->{$name};
	($given->{$name}) = $before =~ m/^\Q$name\E = "([\x21\x23-\x5b\x5d-\x7e]+)"$/m;
	die "$name is missing: both keys are needed\n" if !defined $given->{$name};
    }
    my $text = '';
    for my $name (@KEYS) {
	die "$name: characters that no key has\n" if $given->{$name} !~ m/^[\x21\x23-\x5b\x5d-\x7e]+$/;
	$text .= "$name = \"$given->{$name}\"\n";
    }
    mkdir $PRIV_DIR, 0700;
    PVE::Tools::file_set_contents(keys_file($storeid), $text, 0600);
}

sub lifecycle {
    my ($storeid, $scfg, $was_enabled) = @_;

    return if !$scfg->{lifecycle_enabled} && !$was_enabled;
    my @days;
    if ($scfg->{lifecycle_enabled}) {
	push @days, '--transition-days', $scfg->{transition_days} if $scfg->{transition_days};
	push @days, '--glacier-days', $scfg->{glacier_days} if $scfg->{glacier_days};
	die "lifecycle_enabled needs transition_days or glacier_days\n" if !@days;
    } else {
	@days = ('--remove');
    }
    write_config($storeid, $scfg);
    run_command(
	['s3fsx', 'pve', 'lifecycle', $storeid, @days],
	timeout => $LIFECYCLE_LIMIT,
	errmsg => "lifecycle rules of $storeid",
    );
}

# --- files of one node

sub unit {
    my ($storeid) = @_;
    return "s3fsx\@$storeid.service";
}

sub keys_file {
    my ($storeid) = @_;
    return "$PRIV_DIR/$storeid.s3fsx";
}

sub config_file {
    my ($storeid) = @_;
    return "$CONFIG_DIR/$storeid.toml";
}

sub drop_in {
    my ($storeid) = @_;
    return "$UNIT_DIR/" . unit($storeid) . ".d/mountpoint.conf";
}

sub quoted {
    my ($text) = @_;
    die "a value with control characters\n" if $text =~ m/[\x00-\x1f\x7f]/;
    $text =~ s/(["\\])/\\$1/g;
    return "\"$text\"";
}

sub config_text {
    my ($storeid, $scfg) = @_;

    my @lines = ("# Written by S3fsxPlugin.pm from storage.cfg: changes here are lost; use pvesm set $storeid.");
    for my $name (@SETTINGS) {
	push @lines, "$name = " . quoted($scfg->{$name}) if defined $scfg->{$name} && $scfg->{$name} ne '';
    }
    # s3fsx wants room for four parts; its default is 128 MiB.
    my $part = $scfg->{multipart_chunk_size} // 8;
    push @lines, 'memory_budget = ' . quoted(4 * $part . 'MiB') if $part > 32;
    push @lines, 'credentials_file = ' . quoted(keys_file($storeid)) if -e keys_file($storeid);
    push @lines, 'runtime_dir = ' . quoted($RUNTIME_DIR);
    return join("\n", @lines) . "\n";
}

# Whether something was written: 'config', 'unit' or both.
sub write_config {
    my ($storeid, $scfg) = @_;

    my %wanted = (config_file($storeid) => config_text($storeid, $scfg));
    my $drop_in = drop_in($storeid);
    $wanted{$drop_in} = "# Written by S3fsxPlugin.pm.\n[Service]\nEnvironment=MOUNTPOINT=$scfg->{path}\n"
	if $scfg->{path} ne "$MOUNTS/$storeid";
    my $written = 0;
    for my $file (sort keys %wanted) {
	next if -e $file && PVE::Tools::file_get_contents($file) eq $wanted{$file};
	my ($directory) = $file =~ m|^(.*)/|;
	File::Path::make_path($directory, { mode => $file eq $drop_in ? 0755 : 0700 });
	PVE::Tools::file_set_contents($file, $wanted{$file}, $file eq $drop_in ? 0644 : 0600);
	run_command(['systemctl', 'daemon-reload'], timeout => 20) if $file eq $drop_in;
	$written = 1;
    }
    return $written;
}

# --- the mount

# Of the kernel, which always answers.
sub is_mounted {
    my ($path, $mountdata) = @_;

    $mountdata //= PVE::ProcFSTools::parse_proc_mounts();
    return scalar grep { $_->[1] eq $path && $_->[2] eq 'fuse.s3fsx' } @$mountdata;
}

# As s3fsx names it (s3fsx/service/status.py).
sub socket_path {
    my ($path) = @_;

    my $name = $path;
    $name =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord($1))/ge;
    my $socket = "$RUNTIME_DIR/$name.sock";
    return $socket if length($socket) <= 107;
    return "$RUNTIME_DIR/@" . substr(Digest::SHA::sha256_hex($path), 0, 16) . '.sock';
}

# What the daemon says of itself, within ANSWER_LIMIT in all; undef when it does not.
sub daemon_status {
    my ($path) = @_;

    my $end = Time::HiRes::time() + $ANSWER_LIMIT;
    my $text = '';
    my $done = eval {
	my $socket = IO::Socket::UNIX->new(Peer => socket_path($path), Timeout => $ANSWER_LIMIT) or return 0;
	$socket->blocking(0);
	my $select = IO::Select->new($socket);
	while ((my $left = $end - Time::HiRes::time()) > 0) {
	    next if !$select->can_read($left);
	    my $count = sysread($socket, my $chunk, 65536);
	    next if !defined($count) && ($!{EAGAIN} || $!{EINTR});
	    return 0 if !defined($count) || length($text) > 1 << 20;
	    return 1 if $count == 0;
	    $text .= $chunk;
	}
	return 0;
    };
    return if !$done;
    my $document = eval { JSON::PP::decode_json($text) };
    return ref($document) eq 'HASH' ? $document : undef;
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    my $path = $scfg->{path};
    my $written = write_config($storeid, $scfg);
    if (!is_mounted($path)) {
	run_command(['systemctl', 'start', '--no-block', unit($storeid)], timeout => 20);
	my $end = Time::HiRes::time() + $MOUNT_LIMIT;
	until (is_mounted($path)) {
	    die "unable to activate storage '$storeid' - not mounted yet; journalctl -u " . unit($storeid) . " shows why\n"
		if Time::HiRes::time() > $end;
	    Time::HiRes::sleep(0.1);
	}
	$cache->{mountdata} = undef;
    } elsif ($written) {
	warn "storage $storeid: new settings count from the next mount on: systemctl restart " . unit($storeid) . "\n";
    }
    die "unable to activate storage '$storeid' - its daemon does not answer; 's3fsx status $path' shows more\n"
	if !daemon_status($path);
    return $class->SUPER::activate_storage($storeid, { %$scfg, is_mountpoint => 1 }, $cache);
}

sub deactivate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    return 1 if !is_mounted($scfg->{path});
    run_command(['systemctl', 'stop', unit($storeid)], timeout => $STOP_LIMIT, errmsg => "unmounting $storeid");
    $cache->{mountdata} = undef;
    return 1;
}

# undef is "inactive" to Proxmox.
sub status {
    my ($class, $storeid, $scfg, $cache) = @_;

    return if !is_mounted($scfg->{path}, $cache->{mountdata});
    my $document = daemon_status($scfg->{path});
    return if !$document || ($document->{endpoint} // {})->{down};
    return $class->SUPER::status($storeid, $scfg, $cache);
}

# Whether the store could be reached, for Proxmox' own check before an activation. Never waits for it.
sub check_connection {
    return 1;
}

1;
