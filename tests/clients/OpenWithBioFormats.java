import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import loci.common.DebugTools;
import loci.common.services.ServiceFactory;
import loci.formats.FormatTools;
import loci.formats.ImageReader;
import loci.formats.meta.IMetadata;
import loci.formats.services.OMEXMLService;
import ome.units.UNITS;
import ome.units.quantity.Length;

/**
 * Opens an image with Bio-Formats and writes what it reads.
 *
 * java -cp bioformats_package.jar OpenWithBioFormats.java FOLDER IMAGE
 *
 * FOLDER gets pixels.raw (planes in the order of the file, bytes as they are) and
 * image.json.
 */
public class OpenWithBioFormats {
  public static void main(String[] words) throws Exception {
    DebugTools.setRootLevel("ERROR");
    Path folder = Path.of(words[0]);
    ImageReader reader = new ImageReader();
    IMetadata metadata =
        new ServiceFactory().getInstance(OMEXMLService.class).createOMEXMLMetadata();
    reader.setMetadataStore(metadata);
    reader.setId(words[1]);
    try (DataOutputStream out = new DataOutputStream(
        new FileOutputStream(folder.resolve("pixels.raw").toFile()))) {
      for (int n = 0; n < reader.getImageCount(); n++) out.write(reader.openBytes(n));
    }
    Files.writeString(folder.resolve("image.json"), String.format(
        "{\"version\": \"%s\", \"c\": %d, \"z\": %d, \"t\": %d, \"y\": %d, \"x\": %d,"
            + " \"order\": \"%s\", \"type\": \"%s\", \"little\": %b,"
            + " \"name\": \"%s\", \"size\": [%s, %s, %s], \"position\": [%s, %s]}",
        FormatTools.VERSION, reader.getSizeC(), reader.getSizeZ(), reader.getSizeT(),
        reader.getSizeY(), reader.getSizeX(), reader.getDimensionOrder(),
        FormatTools.getPixelTypeString(reader.getPixelType()), reader.isLittleEndian(),
        metadata.getImageName(0), um(metadata.getPixelsPhysicalSizeZ(0)),
        um(metadata.getPixelsPhysicalSizeY(0)), um(metadata.getPixelsPhysicalSizeX(0)),
        metadata.getPlaneCount(0) > 0 ? um(metadata.getPlanePositionY(0, 0)) : null,
        metadata.getPlaneCount(0) > 0 ? um(metadata.getPlanePositionX(0, 0)) : null));
    System.exit(0);
  }

  static Number um(Length length) {
    return length == null ? null : length.value(UNITS.MICROMETER);
  }
}
