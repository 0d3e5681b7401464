import ij.IJ;
import ij.ImagePlus;
import ij.ImageStack;
import ij.gui.Roi;
import ij.measure.Calibration;
import ij.plugin.frame.RoiManager;
import ij.process.FloatProcessor;
import ij.process.ImageProcessor;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;

/**
 * Opens an image in ImageJ and writes what it shows.
 *
 * java -cp ij.jar ShowInImageJ.java FOLDER IMAGE [ROIS.zip]
 *
 * FOLDER gets pixels.raw (32-bit floats, big-endian, slice by slice) and image.json. With
 * ROIs, the pixels are the ids at which the ROI Manager has them, each in the slice that
 * ImageJ goes to when the ROI is selected.
 */
public class ShowInImageJ {
  public static void main(String[] words) throws Exception {
    Path folder = Path.of(words[0]);
    ImagePlus image = IJ.openImage(words[1]);
    if (image == null) throw new IllegalStateException("not opened: " + words[1]);
    ImageStack shown = words.length > 2 ? drawn(image, words[2]) : image.getStack();
    try (DataOutputStream out = new DataOutputStream(
        new java.io.BufferedOutputStream(
            new FileOutputStream(folder.resolve("pixels.raw").toFile())))) {
      for (int n = 1; n <= shown.getSize(); n++)
        for (float value : (float[]) shown.getProcessor(n).convertToFloat().getPixels())
          out.writeFloat(value);
    }
    Calibration c = image.getCalibration();
    Files.writeString(folder.resolve("image.json"), String.format(Locale.ROOT,
        "{\"version\": \"%s\", \"c\": %d, \"z\": %d, \"t\": %d, \"y\": %d, \"x\": %d,"
            + " \"size\": [%s, %s, %s], \"units\": [\"%s\", \"%s\", \"%s\"],"
            + " \"range\": [%s, %s]}",
        IJ.getVersion(), image.getNChannels(), image.getNSlices(), image.getNFrames(),
        image.getHeight(), image.getWidth(), c.pixelDepth, c.pixelHeight, c.pixelWidth,
        c.getZUnit(), c.getYUnit(), c.getUnit(), image.getDisplayRangeMin(),
        image.getDisplayRangeMax()));
    System.exit(0);
  }

  /** Returns ids, each filled where the ROI Manager shows the ROI of that name. */
  static ImageStack drawn(ImagePlus image, String rois) {
    ImageStack stack = new ImageStack(image.getWidth(), image.getHeight());
    for (int n = 0; n < image.getStackSize(); n++)
      stack.addSlice(new FloatProcessor(image.getWidth(), image.getHeight()));
    RoiManager manager = new RoiManager(false);
    manager.runCommand("Open", rois);
    for (int n = 0; n < manager.getCount(); n++) {
      image.setSlice(1);
      manager.select(image, n);
      Roi roi = image.getRoi();
      ImageProcessor plane = stack.getProcessor(image.getCurrentSlice());
      plane.setValue(Float.parseFloat(roi.getName().split("[ -]")[0]));
      plane.fill(roi);
    }
    return stack;
  }
}
