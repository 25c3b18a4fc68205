package PVE::Storage::Plugin;

use strict;
use warnings;

use File::Path;
use Filesys::Df::Stub;

use base qw(PVE::SectionConfig);

our @SHARED_STORAGE = ('nfs', 'cifs', 'pbs');

my $DIRS = { backup => 'dump', iso => 'template/iso', vztmpl => 'template/cache', snippets => 'snippets' };
my $data = {
    propertyList => {
	map { $_ => { optional => 1 } }
	    qw(type storage nodes content disable prune-backups max-protected-backups shared subdir format preallocation
	    content-dirs options port)
    },
};

sub private {
    return $data;
}

sub on_add_hook { return undef }
sub on_update_hook { return undef }
sub on_delete_hook { return undef }

sub get_subdir {
    my ($class, $scfg, $type) = @_;
    return "$scfg->{path}/$DIRS->{$type}";
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    die "unable to activate storage '$storeid' - directory '$scfg->{path}' does not exist or is unreachable\n"
	if !-d $scfg->{path};
    for my $type (sort keys %$DIRS) {
	mkpath($class->get_subdir($scfg, $type)) if $scfg->{content}->{$type};
    }
}

sub deactivate_storage { }

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;

    my $df = Filesys::Df::Stub::df($scfg->{path});
    return undef if !$df || !$df->{total};
    return ($df->{total}, $df->{avail}, $df->{used}, 1);
}

1;
